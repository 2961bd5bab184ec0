// SPDX-License-Identifier: Apache-2.0
// Encodes or decodes what a test feeds it, through the library alone.
//   fettle_tokenize MODEL            stdin: texts, each a decimal byte count, a
//                                    line feed and the bytes; stdout: ids as a
//                                    JSON list, one line a text
//   fettle_tokenize MODEL --plain    the same without special tokens
//   fettle_tokenize MODEL --decode   stdin: a JSON list of ids a line; stdout:
//                                    the text as a JSON string
//   fettle_tokenize MODEL --bench    stdin: one text; stdout: MB/s as JSON
//   fettle_tokenize MODEL --samples DATA PYTHON SCRIPT
//                                    stdout: ids and labels of each sample of a
//                                    data file, a JSON object a line
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

namespace {

using fettle::Json;
using fettle::text::Tokenizer;

void encode_all(
    const Tokenizer& tokenizer, fettle::text::EncodeOptions options) {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::string text(std::stoul(line), '\0');
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    std::cout << Json(tokenizer.encode(text, options)).dump() << '\n';
  }
}

void decode_all(const Tokenizer& tokenizer) {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto ids = Json::parse(line).get<std::vector<std::int32_t>>();
    std::cout << Json(tokenizer.decode(ids)).dump() << '\n';
  }
}

void print_samples(const Tokenizer& tokenizer, char** arguments) {
  fettle::text::SampleOptions options;
  options.vocab_limit = tokenizer.vocab_size();
  options.model_folder = arguments[1];
  options.renderer = {arguments[4], arguments[5]};
  fettle::text::JsonlReader reader(arguments[3], tokenizer, options);
  while (const auto sample = reader.next()) {
    std::cout << Json{{"ids", sample->ids}, {"labels", sample->labels}}.dump()
              << '\n';
  }
}

// The text is encoded in documents of about 2 kB, as data files hold them.
void bench(const Tokenizer& tokenizer) {
  const std::string text{
      std::istreambuf_iterator<char>(std::cin),
      std::istreambuf_iterator<char>()};
  constexpr std::size_t kDocument = 2048;
  double best = 0;
  std::size_t tokens = 0;
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    tokens = 0;
    for (std::size_t at = 0; at < text.size(); at += kDocument) {
      tokens +=
          tokenizer.encode(std::string_view(text).substr(at, kDocument)).size();
    }
    const std::chrono::duration<double> taken =
        std::chrono::steady_clock::now() - start;
    best =
        std::max(best, static_cast<double>(text.size()) / 1e6 / taken.count());
  }
  std::cout
      << Json{{"megabytes_per_second", best}, {"bytes", text.size()}, {"tokens", tokens}}
      << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: fettle_tokenize MODEL [MODE]\n";
    return 2;
  }
  try {
    const Tokenizer tokenizer = Tokenizer::load(argv[1]);
    const std::string_view mode = argc > 2 ? argv[2] : "";
    if (mode == "--bench") {
      bench(tokenizer);
    } else if (mode == "--decode") {
      decode_all(tokenizer);
    } else if (mode == "--samples" && argc == 6) {
      print_samples(tokenizer, argv);
    } else {
      encode_all(tokenizer, {mode != "--plain"});
    }
  } catch (const fettle::UserError& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
