// SPDX-License-Identifier: Apache-2.0
#include "cli/rank_process.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

#include "cli/failure.h"
#include "core/json.h"
#include "io/unfinished.h"
#include "ranks/gloo_ranks.h"

namespace fettle::cli {
namespace {

const char* variable(const char* name) { return std::getenv(name); }

// Called on a thread that watches the other ranks.
void end_without(const std::string& message) {
  io::Unfinished::clear_all();
  ::_exit(report_rank_failure(message));
}

int usable_cores() {
  cpu_set_t cores;
  if (::sched_getaffinity(0, sizeof(cores), &cores) == 0) {
    return CPU_COUNT(&cores);
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

std::optional<ranks::Place> process_place() {
  return ranks::place_of(variable);
}

std::filesystem::path own_folder(const std::filesystem::path& scratch) {
  return scratch / fmt::format("fettle-rank-{}", ::getpid());
}

std::unique_ptr<ranks::Group> open_ranks() {
  const auto place = process_place();
  if (!place) return std::make_unique<ranks::SingleRank>();
  return ranks::open_gloo_ranks(*place, {.on_loss = end_without});
}

std::string message_prefix() {
  const std::string rank = ranks::rank_name(variable);
  return rank.empty() ? "fettle: " : fmt::format("fettle: {}: ", rank);
}

// In the form that torchrun's own Python writes.
void write_error_file(std::string_view message) noexcept {
  const char* path = variable("TORCHELASTIC_ERROR_FILE");
  if (path == nullptr) return;
  try {
    const Json error{
        {"message",
         {{"message", std::string(message)},
          {"extraInfo", {{"timestamp", std::to_string(std::time(nullptr))}}}}}};
    std::ofstream(path, std::ios::trunc) << error.dump() << "\n";
  } catch (...) {
    // The message was printed too.
  }
}

int threads_of_rank(const ranks::Place& place) {
  return std::max(usable_cores() / static_cast<int>(place.local_size), 1);
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace fettle::cli
