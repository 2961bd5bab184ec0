// SPDX-License-Identifier: Apache-2.0
#include "cli/failure.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "cli/rank_process.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/one_line.h"

namespace fettle::cli {
namespace {

enum ExitStatus {
  kExitFailed = 1,
  kExitUsage = 2,
  kExitInternal = 3,
  kExitRanks = 4
};

int tell_failure(ExitStatus status, std::string_view message) {
  const std::string line = one_line(message);
  std::cerr << fmt::format("{}{}\n", message_prefix(), line) << std::flush;
  write_error_file(line);
  return status;
}

// The bytes that ATen's allocator could not get, from its own words.
std::optional<std::int64_t> refused_bytes(std::string_view text) {
  constexpr std::string_view kTried = "you tried to allocate ";
  const auto found = text.find(kTried);
  if (found == std::string_view::npos) return std::nullopt;
  const std::string_view number = text.substr(found + kTried.size());
  std::int64_t bytes = 0;
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), bytes);
  return error == std::errc{} ? std::optional(bytes) : std::nullopt;
}

// A budget that would have held: the memory in use when there was no more.
std::int64_t fitting_mebibytes() {
  return std::max<std::int64_t>(peak_resident_memory() / 10 * 9 >> 20, 1);
}

int report_out_of_memory(std::optional<std::int64_t> asked) {
  return tell_failure(
      kExitFailed,
      fmt::format(
          "[memory] the machine has no more memory{}, {} being in use: give "
          "--ram {}MiB or less, a smaller --seq-len, or close what else runs",
          asked ? fmt::format(" ({} were asked for)", format_bytes(*asked))
                : "",
          format_bytes(resident_memory()),
          fitting_mebibytes()));
}

int report_libtorch(const c10::Error& error) {
  const std::string_view text = error.what_without_backtrace();
  if (text.find("DefaultCPUAllocator") != std::string_view::npos) {
    return report_out_of_memory(refused_bytes(text));
  }
  return tell_failure(kExitInternal, fmt::format("internal error: {}", text));
}

int report_system(const std::system_error& error) {
  if (error.code() == std::errc::resource_unavailable_try_again) {
    return tell_failure(
        kExitFailed,
        "[system] no more threads can be started: give a smaller --threads, or "
        "raise ulimit -u or -v");
  }
  return tell_failure(kExitFailed, fmt::format("[system] {}", error.what()));
}

int report_file(const std::filesystem::filesystem_error& error) {
  return tell_failure(
      kExitFailed,
      fmt::format(
          "[files] {}: {}",
          error.path1().empty() ? "a file" : error.path1().string(),
          error.code().message()));
}

// A thread of Gloo's ends so when another rank sends what it does not expect.
[[noreturn]] void end_uncaught() {
  int status = kExitInternal;
  if (std::current_exception()) {
    status = report_failure();
  } else {
    tell_failure(kExitInternal, "internal error: terminated");
  }
  ::_exit(status);
}

}  // namespace

int report_failure() {
  try {
    throw;
  } catch (const UsageError& error) {
    return tell_failure(kExitUsage, error.what());
  } catch (const UserError& error) {
    return tell_failure(kExitFailed, error.what());
  } catch (const ranks::RankFailure& error) {
    return report_rank_failure(error.what());
  } catch (const c10::OutOfMemoryError&) {
    return tell_failure(
        kExitFailed,
        "[memory] the card is out of memory: give a smaller --vram or "
        "--seq-len, or close what else runs on it");
  } catch (const c10::Error& error) {
    return report_libtorch(error);
  } catch (const std::bad_alloc&) {
    return report_out_of_memory(std::nullopt);
  } catch (const std::filesystem::filesystem_error& error) {
    return report_file(error);
  } catch (const std::system_error& error) {
    return report_system(error);
  } catch (const std::exception& error) {
    return tell_failure(
        kExitInternal, fmt::format("internal error: {}", error.what()));
  } catch (...) {
    return tell_failure(kExitInternal, "internal error of an unknown kind");
  }
}

int report_rank_failure(std::string_view message) {
  return tell_failure(kExitRanks, message);
}

void report_uncaught() { std::set_terminate(end_uncaught); }

void check_stdout() {
  errno = 0;
  std::cout.flush();
  if (std::cout) return;
  throw UserError(
      "cli",
      "standard output",
      fmt::format(
          "cannot be written: {}",
          errno != 0 ? std::strerror(errno) : "an earlier write failed"));
}

}  // namespace fettle::cli
