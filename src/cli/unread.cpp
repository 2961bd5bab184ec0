// SPDX-License-Identifier: Apache-2.0
#include "cli/unread.h"

#include <fmt/format.h>

#include <sstream>
#include <string>

#include "core/error.h"

namespace fettle::cli {

void refuse_unread(
    const CLI::App& parser, std::initializer_list<Reader> readers) {
  for (const Reader& reader : readers) {
    if (reader.reads) continue;
    std::istringstream names(reader.options);
    for (std::string name; names >> name;) {
      const CLI::Option* option = parser.get_option_no_throw(name);
      if (option == nullptr || option->count() == 0) continue;
      throw UsageError(
          "cli",
          name,
          fmt::format("has no effect without {}; leave it out", reader.who));
    }
  }
}

}  // namespace fettle::cli
