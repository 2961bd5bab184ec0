// SPDX-License-Identifier: Apache-2.0
// Several processes that do one piece of work: each is a rank, and all call the
// same functions in the same order.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::ranks {

// Another rank ended, is not heard of any more, or never came. The text is one
// line that names it and says what to do.
class RankFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Group {
 public:
  virtual ~Group() = default;
  virtual std::int64_t rank() const = 0;
  virtual std::int64_t size() const = 0;

  // Numbers of elements for each rank, or from it: [size].
  struct Splits {
    std::vector<std::int64_t> received;
    std::vector<std::int64_t> sent;
  };
  // Sends each rank its part of `in`, and has in `out` what the ranks sent, in
  // their order. Both are contiguous, of one type, on the CPU.
  virtual void all_to_all(
      const at::Tensor& out, const at::Tensor& in, const Splits& splits) = 0;
  // Everyone has the root's values afterwards; contiguous, on the CPU.
  virtual void broadcast(const at::Tensor& values, std::int64_t root) = 0;
  // Everyone's short text, in the order of ranks: at most 8 MiB.
  virtual std::vector<std::string> gather(const std::string& text) = 0;
  virtual void barrier() = 0;

  // What the next calls are for, such as "forward, layer 3": a failure says it.
  virtual void begin(std::string /*work*/) {}
  // Has the other ranks know why this one is about to end.
  virtual void fail(std::string_view /*reason*/) noexcept {}
  // The last call of a run that went well: waits for all others.
  virtual void leave() {}
  // Bytes of tensors that this rank has sent to others.
  virtual std::int64_t sent_bytes() const { return 0; }
};

// The group of a process that works alone.
class SingleRank : public Group {
 public:
  std::int64_t rank() const override { return 0; }
  std::int64_t size() const override { return 1; }
  void all_to_all(
      const at::Tensor& out, const at::Tensor& in, const Splits&) override {
    out.copy_(in);
  }
  void broadcast(const at::Tensor&, std::int64_t) override {}
  std::vector<std::string> gather(const std::string& text) override {
    return {text};
  }
  void barrier() override {}
};

// A number of the root's, which may differ at others.
std::int64_t broadcast_value(
    Group& group, std::int64_t value, std::int64_t root);
// A text of the root's, which may differ or be empty at others.
std::string broadcast_text(
    Group& group, const std::string& text, std::int64_t root);

// Of all ranks' values.
std::int64_t least(Group& group, std::int64_t value);
std::int64_t sum(Group& group, std::int64_t value);

// Adds every rank's values, which are contiguous and on the CPU, in the order
// of ranks: for few of them.
void add_up(Group& group, at::Tensor& values);

// Everyone has the root's values afterwards: tensors of the same types and
// shapes at each rank, on any device. Small ones go together.
void share(
    Group& group, const std::vector<at::Tensor>& values, std::int64_t root);

// The rows of all ranks' `own` [n, ...], one rank's after another's, at rank 0,
// and none at others. Contiguous, on the CPU, of one type and width; each rank
// may have another n.
at::Tensor rows_at_rank_0(Group& group, const at::Tensor& own);

// What all ranks must have in common, with names for people.
struct Common {
  std::string name;   // "the model", "--threads"
  std::string value;  // compared, and shown
};
// Throws UserError at every rank naming the first rank that differs from rank 0
// and in what.
void require_same(Group& group, const std::vector<Common>& values);

}  // namespace fettle::ranks
