// SPDX-License-Identifier: Apache-2.0
// Conversations as text, by the model's own chat template. Templates are Jinja
// programs written for the reference implementation, so that is what renders
// them: tools/render_chat.py, a process that is asked line by line.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace fettle::text {

// Where the helper is found.
struct ChatRenderer {
  // A Python 3 that has transformers and jinja2; a name is looked up on PATH.
  // Empty: $FETTLE_PYTHON, else "python3".
  std::string python;
  // tools/render_chat.py.
  std::filesystem::path script;
  // How long an answer may take. The script sets its own limits, much lower.
  std::chrono::seconds patience{1800};
};

// A stretch of a rendered conversation. The stretches joined are the text.
struct ChatSegment {
  std::string text;
  bool counts;  // what the assistant said, the end-of-turn marker included
};

// A running helper. Not for use by several threads at once.
class ChatSession {
 public:
  // Starts the helper for a model folder, which holds chat_template.jinja or a
  // chat_template in tokenizer_config.json. Throws UserError when Python, the
  // script, its packages or the template are missing.
  ChatSession(
      const ChatRenderer& renderer, const std::filesystem::path& model_folder);
  ~ChatSession();
  ChatSession(const ChatSession&) = delete;
  ChatSession& operator=(const ChatSession&) = delete;

  // Renders the conversation of a data row, given as the JSON text of the row
  // itself: templates see the order of keys and the digits of numbers. Throws
  // UserError about `subject` when the template refuses the messages or when
  // what it writes for a turn changes with the turns that follow.
  std::vector<ChatSegment> render(
      std::string_view row, const std::string& subject);

  // The conversation up to where the assistant's next answer begins. `row` is
  // as in render(); whose turn it is doesn't matter.
  std::string ask(std::string_view row, const std::string& subject);

 private:
  class Process;

  void send(std::string_view line);
  Json reply(const std::string& subject);

  std::string command_;
  std::chrono::seconds patience_;
  std::unique_ptr<Process> process_;
};

// A session for those who share one; empty until one of them starts it.
struct ChatHelper {
  std::unique_ptr<ChatSession> session;
};

}  // namespace fettle::text
