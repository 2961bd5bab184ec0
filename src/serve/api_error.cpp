// SPDX-License-Identifier: Apache-2.0
#include "serve/api_error.h"

namespace fettle::serve {
namespace {

const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

Json or_null(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

}  // namespace

Json ApiError::to_json() const {
  return {
      {"error",
       {{"message", refusal_.message},
        {"type", type_of(refusal_.status)},
        {"param", or_null(refusal_.param)},
        {"code", or_null(refusal_.code)}}}};
}

}  // namespace fettle::serve
