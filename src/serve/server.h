// SPDX-License-Identifier: Apache-2.0
// The HTTP side: routes, keys, streams of events. Everything that a client can
// send wrongly ends in a 4xx with OpenAI's error object.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "serve/api_request.h"
#include "serve/dispatcher.h"

namespace httplib {
class Server;
struct Request;
struct Response;
}  // namespace httplib

namespace fettle::serve {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;                // 0: any that is free
  std::string key = {};           // that clients must show; empty: none
  std::int64_t connections = 64;  // served at a time
};

class Server {
 public:
  // Keeps references.
  Server(Served served, Dispatcher& dispatcher, ServerOptions options);
  // Takes no more connections and waits for those that are there.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Listens from now on, by threads of its own. Returns the port. Throws
  // UserError where it can't be had.
  int start();

 private:
  void add_routes();
  void add_rules();
  void answer(
      Api api, const httplib::Request& request, httplib::Response& response);

  Served served_;
  Dispatcher& dispatcher_;
  ServerOptions options_;
  std::unique_ptr<httplib::Server> http_;
  std::atomic<int> answering_ = 0;
  std::thread listener_;
};

}  // namespace fettle::serve
