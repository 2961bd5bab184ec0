// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <malloc.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "cli/end_process.h"
#include "cli/process.h"

namespace {

// Whether `entry` of the environment sets the variable `name`.
bool sets(const char* entry, const char* name) {
  while (*name != '\0' && *entry == *name) {
    ++entry;
    ++name;
  }
  return *name == '\0' && *entry == '=';
}

// Without one of the standard streams, the first file that is opened takes its
// number, and messages would be written into it.
void open_standard_streams() {
  for (int stream = 0; stream <= 2; ++stream) {
    if (::fcntl(stream, F_GETFD) == -1) ::open("/dev/null", O_RDWR);
  }
}

// How long waiting threads spin is for kernels/crowd_guard.h to govern, which
// takes libgomp's own defaults for granted. libgomp reads these variables once,
// when it is loaded.
void forget_wait_policy(char** environment) {
  static std::array<char, 3> nothing{'_', '=', '\0'};
  for (char** entry = environment; *entry != nullptr; ++entry) {
    if (sets(*entry, "OMP_WAIT_POLICY") || sets(*entry, "GOMP_SPINCOUNT")) {
      *entry = nothing.data();
    }
  }
}

// A folder for temporary files that isn't there is as good as none named: most
// runs need none.
void forget_bad_scratch() {
  std::error_code error;
  const auto folder = std::filesystem::temp_directory_path(error);
  if (!folder.empty()) return;
  for (const char* name : {"TMPDIR", "TMP", "TEMP", "TEMPDIR"})
    ::unsetenv(name);
}

void prepare_process(int, char**, char** environment) {
  open_standard_streams();
  forget_wait_policy(environment);
}

// Called by the dynamic linker ahead of every library's own beginnings, some of
// which open files, read the environment and start threads.
[[gnu::section(".preinit_array"),
  gnu::used]] void (*const kFirst)(int, char**, char**) = prepare_process;

}  // namespace

int main(int argc, char** argv) {
  // Sweeps free and ask for the same few large buffers over and over. Kept in
  // the heap they cost nothing; mapped anew each time, their pages must be
  // zeroed by the kernel: that took up to nine tenths of a norm's time.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  mallopt(M_ARENA_MAX, 2);
  forget_bad_scratch();
  fettle::cli::end_process(fettle::cli::run_process(argc, argv));
}
