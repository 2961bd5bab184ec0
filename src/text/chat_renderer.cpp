// SPDX-License-Identifier: Apache-2.0
#include "text/chat_renderer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace fettle::text {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept
      : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }

  int number() const { return number_; }
  void close() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }

 private:
  int number_;
};

// What the child is given: one socket as both its standard streams. Its
// messages come as replies, so its standard error says nothing new.
class SpawnActions {
 public:
  explicit SpawnActions(int socket) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_adddup2(&actions_, socket, 0);
    posix_spawn_file_actions_adddup2(&actions_, socket, 1);
    posix_spawn_file_actions_addopen(&actions_, 2, "/dev/null", O_WRONLY, 0);
  }
  ~SpawnActions() { posix_spawn_file_actions_destroy(&actions_); }
  SpawnActions(const SpawnActions&) = delete;
  SpawnActions& operator=(const SpawnActions&) = delete;

  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
};

std::string python_of(const ChatRenderer& renderer) {
  if (!renderer.python.empty()) return renderer.python;
  const char* named = std::getenv("FETTLE_PYTHON");
  return named != nullptr && *named != '\0' ? named : "python3";
}

}  // namespace

class ChatSession::Process {
 public:
  explicit Process(std::vector<std::string> arguments) : socket_(-1) {
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      refuse_start(arguments.front(), errno);
    }
    socket_ = Descriptor(ends[0]);
    const Descriptor child(ends[1]);
    const SpawnActions actions(child.number());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const int error = posix_spawnp(
        &pid_, argv[0], actions.get(), nullptr, argv.data(), environ);
    if (error != 0) refuse_start(arguments.front(), error);
  }

  ~Process() {
    socket_.close();
    stop();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  bool send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent =
          ::send(socket_.number(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  enum class Reply { kLine, kEnd, kLate };

  // The next line without its end, if it comes in time.
  Reply receive(std::string& line, std::chrono::seconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    std::size_t end;
    std::size_t searched = 0;
    while ((end = buffer_.find('\n', searched)) == std::string::npos) {
      searched = buffer_.size();
      if (!wait_until(deadline)) return Reply::kLate;
      std::array<char, 65536> chunk;
      const ssize_t got =
          ::recv(socket_.number(), chunk.data(), chunk.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return Reply::kEnd;
      buffer_.append(chunk.data(), static_cast<std::size_t>(got));
    }
    line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    return Reply::kLine;
  }

 private:
  [[noreturn]] static void refuse_start(const std::string& python, int error) {
    throw UserError(
        "chat",
        python,
        fmt::format(
            "cannot be started: {}; chat data needs a Python 3 with "
            "transformers and jinja2, named by FETTLE_PYTHON",
            std::strerror(error)));
  }

  // Whether there is something to read, or the end, before the deadline.
  bool wait_until(std::chrono::steady_clock::time_point deadline) const {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd readable{socket_.number(), POLLIN, 0};
    const int ready =
        ::poll(&readable, 1, static_cast<int>(std::max(left.count(), 0L)));
    return ready > 0 || (ready < 0 && errno == EINTR);
  }

  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
  }

  Descriptor socket_;
  std::string buffer_;
  pid_t pid_ = -1;
};

ChatSession::ChatSession(
    const ChatRenderer& renderer, const std::filesystem::path& model_folder) {
  if (!std::filesystem::exists(renderer.script)) {
    throw UserError(
        "chat",
        renderer.script.string(),
        "the script that renders chat templates is missing; it is "
        "tools/render_chat.py of Fettle's source");
  }
  command_ = python_of(renderer);
  patience_ = renderer.patience;
  process_ = std::make_unique<Process>(std::vector<std::string>{
      command_, renderer.script.string(), model_folder.string()});
  reply(model_folder.string());
}

ChatSession::~ChatSession() = default;

Json ChatSession::reply(const std::string& subject) {
  std::string line;
  const auto got = process_->receive(line, patience_);
  if (got != Process::Reply::kLine) {
    throw UserError(
        "chat",
        subject,
        fmt::format(
            "the chat renderer, run by '{}', {}; try that Python with "
            "tools/render_chat.py by hand",
            command_,
            got == Process::Reply::kEnd
                ? "ended without a reply"
                : fmt::format("gave no reply in {} s", patience_.count())));
  }
  Json answer = parse_json(line, "chat", subject);
  const JsonObject object(answer, "chat", subject);
  if (object.has("error")) {
    throw UserError("chat", subject, object.string("error"));
  }
  return answer;
}

// A dead helper shows in the missing reply.
void ChatSession::send(std::string_view request) {
  // One line: in JSON an end of a line can only stand between tokens.
  std::string line(request);
  std::replace(line.begin(), line.end(), '\n', ' ');
  process_->send(line + "\n");
}

std::string ChatSession::ask(std::string_view row, const std::string& subject) {
  send(fmt::format("{{\"ask\": {}}}", row));
  const Json answer = reply(subject);
  return JsonObject(answer, "chat", subject).string("text");
}

std::vector<ChatSegment> ChatSession::render(
    std::string_view row, const std::string& subject) {
  send(row);
  const Json answer = reply(subject);
  const JsonObject object(answer, "chat", subject);
  std::vector<ChatSegment> segments;
  const Json& list = object.at("segments");
  for (const Json& item : list) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() ||
        !item[1].is_boolean()) {
      object.refuse("segments", "must hold pairs of a text and a truth value");
    }
    segments.push_back({item[0].get<std::string>(), item[1].get<bool>()});
  }
  return segments;
}

}  // namespace fettle::text
