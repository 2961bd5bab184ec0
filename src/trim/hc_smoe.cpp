// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "trim/expert_groups.h"

namespace fettle::trim {
namespace {

// Mean distance between the members of two clusters.
double linkage(
    const double* distances,
    std::int64_t experts,
    const ExpertGroup& a,
    const ExpertGroup& b) {
  double sum = 0;
  for (const std::int64_t i : a) {
    for (const std::int64_t j : b) sum += distances[i * experts + j];
  }
  return sum / static_cast<double>(a.size() * b.size());
}

}  // namespace

std::vector<ExpertGroup> cluster_by_output(
    const at::Tensor& mean_outputs,
    const std::vector<std::int64_t>& tokens,
    std::int64_t count) {
  const std::int64_t experts = mean_outputs.size(0);
  const at::Tensor points = mean_outputs.to(at::kDouble);
  // Without the usual shortcut through products, which would leave rounding
  // between equal points.
  const at::Tensor distance =
      at::cdist(points, points, 2.0, /*compute_mode=*/2).contiguous();
  const double* distances = distance.const_data_ptr<double>();
  std::vector<ExpertGroup> clusters;
  for (std::int64_t e = 0; e < experts; ++e) clusters.push_back({e});
  while (static_cast<std::int64_t>(clusters.size()) > count) {
    double least = std::numeric_limits<double>::infinity();
    std::size_t first = 0, second = 1;
    for (std::size_t a = 0; a < clusters.size(); ++a) {
      for (std::size_t b = a + 1; b < clusters.size(); ++b) {
        const double far =
            linkage(distances, experts, clusters[a], clusters[b]);
        if (far < least) {
          least = far;
          first = a;
          second = b;
        }
      }
    }
    ExpertGroup& into = clusters[first];
    into.insert(into.end(), clusters[second].begin(), clusters[second].end());
    clusters.erase(clusters.begin() + static_cast<std::ptrdiff_t>(second));
  }
  for (ExpertGroup& cluster : clusters) {
    std::ranges::sort(cluster, [&](std::int64_t a, std::int64_t b) {
      return tokens[a] != tokens[b] ? tokens[a] > tokens[b] : a < b;
    });
    std::sort(cluster.begin() + 1, cluster.end());
  }
  std::ranges::sort(clusters, {}, [](const ExpertGroup& c) { return c[0]; });
  return clusters;
}

}  // namespace fettle::trim
