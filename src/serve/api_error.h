// SPDX-License-Identifier: Apache-2.0
// A refusal of one request: an HTTP status and OpenAI's error object.
#pragma once

#include <stdexcept>
#include <string>

#include "core/json.h"

namespace fettle::serve {

struct Refusal {
  int status = 400;  // of HTTP
  std::string message;
  std::string param = {};  // the field of the request; empty: none
  std::string code = {};   // for programs; empty: none
  int retry_after = 0;     // seconds; 0: no word on that
};

class ApiError : public std::runtime_error {
 public:
  explicit ApiError(Refusal refusal)
      : std::runtime_error(refusal.message), refusal_(std::move(refusal)) {}

  const Refusal& refusal() const { return refusal_; }
  // {"error": {"message", "type", "param", "code"}}
  Json to_json() const;

 private:
  Refusal refusal_;
};

}  // namespace fettle::serve
