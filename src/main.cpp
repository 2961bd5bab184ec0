// SPDX-License-Identifier: Apache-2.0
#include <malloc.h>

#include "cli/cli.h"

int main(int argc, char** argv) {
  // Sweeps free and ask for the same few large buffers over and over. Kept in
  // the heap they cost nothing; mapped anew each time, their pages must be
  // zeroed by the kernel: that took up to nine tenths of a norm's time.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  mallopt(M_ARENA_MAX, 2);
  return fettle::cli::run(argc, argv);
}
