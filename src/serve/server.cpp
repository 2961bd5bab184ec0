// SPDX-License-Identifier: Apache-2.0
#include "serve/server.h"

#include <fmt/format.h>
#include <httplib.h>

#include <chrono>
#include <exception>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/json_text.h"
#include "serve/answer.h"
#include "serve/api_error.h"
#include "serve/field_reader.h"
#include "serve/metrics.h"

namespace fettle::serve {
namespace {

using namespace std::chrono_literals;

constexpr const char* kJson = "application/json";
constexpr std::size_t kLongestBody = std::size_t{16} << 20;  // bytes
constexpr int kSlowest = 30;                                 // seconds

void refuse(httplib::Response& response, const ApiError& error) {
  response.status = error.refusal().status;
  if (error.refusal().retry_after > 0) {
    response.set_header(
        "Retry-After", std::to_string(error.refusal().retry_after));
  }
  response.set_content(dumped(error.to_json()), kJson);
}

// A handler whose exceptions become answers.
template <typename Handler>
httplib::Server::Handler guarded(Handler handler) {
  return
      [handler](const httplib::Request& request, httplib::Response& response) {
        try {
          handler(request, response);
        } catch (const ApiError& error) {
          refuse(response, error);
        } catch (const UserError& error) {
          refuse(response, ApiError({.message = error.what()}));
        } catch (const std::exception& error) {
          refuse(response, ApiError({.status = 500, .message = error.what()}));
        }
      };
}

// Takes as long whatever the difference is.
bool same_key(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  }
  return difference == 0;
}

const char* about(int status) {
  if (status == 404) return "There is no such path here";
  if (status == 413) return "The body is too large";
  return "The request is malformed";
}

Json tokenized(const std::string& body, const Served& served) {
  const Json json = read_body(body);
  FieldReader fields(json);
  const auto prompt = fields.string("prompt");
  const bool special = fields.boolean("add_special_tokens", true);
  fields.ignore({"model"});
  fields.finish();
  if (!prompt) refuse_field("prompt", "is missing");
  const auto ids =
      served.tokenizer.encode(*prompt, {.add_special_tokens = special});
  return {
      {"tokens", ids},
      {"count", ids.size()},
      {"max_model_len", served.context}};
}

Json detokenized(const std::string& body, const Served& served) {
  const Json json = read_body(body);
  FieldReader fields(json);
  const Json* const tokens = fields.find("tokens");
  fields.ignore({"model"});
  fields.finish();
  std::vector<std::int32_t> ids;
  for (const Json& one : tokens != nullptr && tokens->is_array()
                             ? *tokens
                             : Json::array({nullptr})) {
    const bool known =
        one.is_number_integer() && one >= 0 && one < Json(served.vocab_size);
    if (!known) {
      refuse_field("tokens", "expected a list of tokens, found " + shown(one));
    }
    ids.push_back(one.get<std::int32_t>());
  }
  return {
      {"prompt", served.tokenizer.decode(ids, {.skip_special_tokens = false})}};
}

}  // namespace

Server::Server(Served served, Dispatcher& dispatcher, ServerOptions options)
    : served_(std::move(served)),
      dispatcher_(dispatcher),
      options_(std::move(options)),
      http_(std::make_unique<httplib::Server>()) {
  add_rules();
  add_routes();
}

Server::~Server() {
  // What is made already is still on its way.
  for (int i = 0; i < kSlowest * 20 && answering_ > 0; ++i) {
    std::this_thread::sleep_for(50ms);
  }
  http_->stop();
  if (listener_.joinable()) listener_.join();
}

void Server::add_rules() {
  const auto threads = static_cast<std::size_t>(options_.connections);
  http_->new_task_queue = [threads] {
    return new httplib::ThreadPool(threads);
  };
  http_->set_payload_max_length(kLongestBody);
  http_->set_read_timeout(kSlowest);
  http_->set_write_timeout(kSlowest);
  http_->set_tcp_nodelay(true);
  // By default the library shares the port with whoever asks for it too.
  http_->set_socket_options([](socket_t socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  http_->set_error_handler([](const httplib::Request&,
                              httplib::Response& response) {
    if (!response.body.empty()) return;
    const int status = response.status;
    refuse(response, ApiError({.status = status, .message = about(status)}));
  });
  if (options_.key.empty()) return;
  http_->set_pre_routing_handler([key = "Bearer " + options_.key](
                                     const httplib::Request& request,
                                     httplib::Response& response) {
    using Handled = httplib::Server::HandlerResponse;
    const bool known = same_key(request.get_header_value("Authorization"), key);
    if (known || request.path == "/health") return Handled::Unhandled;
    refuse(
        response,
        ApiError(
            {.status = 401,
             .message = "The API key is missing or wrong",
             .code = "invalid_api_key"}));
    return Handled::Handled;
  });
}

void Server::add_routes() {
  using httplib::Request;
  using httplib::Response;
  http_->Get("/health", [](const Request&, Response& response) {
    response.set_content(R"({"status":"ok"})", kJson);
  });
  http_->Get("/metrics", [this](const Request&, Response& response) {
    response.set_content(
        metrics_text(dispatcher_.counts()), "text/plain; version=0.0.4");
  });
  http_->Get("/v1/models", [this](const Request&, Response& response) {
    const Json model = {
        {"id", served_.name},
        {"object", "model"},
        {"created", 0},
        {"owned_by", "fettle"},
        {"max_model_len", served_.context}};
    response.set_content(
        dumped({{"object", "list"}, {"data", Json::array({model})}}), kJson);
  });
  const auto post = [this](const char* path, auto handler) {
    http_->Post(path, guarded(handler));
  };
  post("/v1/completions", [this](const Request& request, Response& response) {
    answer(Api::kCompletions, request, response);
  });
  post(
      "/v1/chat/completions",
      [this](const Request& request, Response& response) {
        answer(Api::kChat, request, response);
      });
  post("/tokenize", [this](const Request& request, Response& response) {
    response.set_content(dumped(tokenized(request.body, served_)), kJson);
  });
  post("/detokenize", [this](const Request& request, Response& response) {
    response.set_content(dumped(detokenized(request.body, served_)), kJson);
  });
}

void Server::answer(
    Api api, const httplib::Request& request, httplib::Response& response) {
  ApiRequest read = read_request(api, request.body, served_);
  auto job = dispatcher_.submit(read.choices);
  const auto writer = std::make_shared<Answer>(
      new_head(api, served_.name),
      std::move(read),
      std::move(job),
      served_.tokenizer);
  ++answering_;
  // One by one, as they are made: a client that goes away is seen, and what it
  // asked for is not decoded.
  response.set_chunked_content_provider(
      writer->content_type(),
      [writer](std::size_t, httplib::DataSink& sink) {
        const Client client{
            .write =
                [&](std::string_view text) {
                  sink.write(text.data(), text.size());
                },
            .is_there = [&] { return sink.is_writable(); }};
        if (writer->go_on(client)) return true;
        if (!client.is_there()) return false;
        sink.done();
        return true;
      },
      [this](bool) { --answering_; });
}

int Server::start() {
  const bool any = options_.port == 0;
  const int port =
      any ? http_->bind_to_any_port(options_.host)
          : (http_->bind_to_port(options_.host, options_.port) ? options_.port
                                                               : -1);
  if (port < 0) {
    throw UserError(
        "serve",
        any ? "--host" : "--port",
        fmt::format(
            "{} port {} can't be listened on; is another program there?",
            options_.host,
            options_.port));
  }
  listener_ = std::thread([this] { http_->listen_after_bind(); });
  return port;
}

}  // namespace fettle::serve
