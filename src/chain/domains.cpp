// SPDX-License-Identifier: Apache-2.0
#include "chain/domains.h"

#include <algorithm>
#include <set>

namespace fettle::chain {
namespace {

double mean_of(const std::vector<FileLoss>& losses) {
  double sum = 0;
  for (const FileLoss& loss : losses) sum += loss.kl;
  return sum / static_cast<double>(losses.size());
}

}  // namespace

std::string domain_name(const std::filesystem::path& file) {
  const std::string stem = file.stem().string();
  const std::size_t last = stem.find_last_of('_');
  return last == std::string::npos ? stem : stem.substr(last + 1);
}

std::vector<Domain> domains_of(
    const std::vector<FileLoss>& cut, const std::vector<FileLoss>& rounded) {
  const auto& first = cut.empty() ? rounded : cut;
  const auto& second = rounded.size() == first.size() ? rounded : first;
  std::vector<Domain> domains;
  std::set<std::string> names;
  for (std::size_t i = 0; i < first.size(); ++i) {
    Domain domain{domain_name(first[i].file)};
    if (!names.insert(domain.name).second) return {};
    if (mean_of(first) > 0) domain.cut = first[i].kl / mean_of(first);
    if (mean_of(second) > 0) domain.round = second[i].kl / mean_of(second);
    domains.push_back(std::move(domain));
  }
  return domains.size() > 1 ? domains : std::vector<Domain>();
}

}  // namespace fettle::chain
