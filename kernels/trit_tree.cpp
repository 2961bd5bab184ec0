// SPDX-License-Identifier: Apache-2.0
#include "kernels/trit_tree.h"

#include <algorithm>
#include <queue>

#include "core/error.h"
#include "kernels/trit_table.h"

namespace fettle::kernels {
namespace {

// A leaf while the tree grows. Of equal weights the earlier one is the first.
struct GrowingLeaf {
  double weight;
  std::int32_t node;
  int trits, zeros_ahead;
  bool all_zeros;

  bool operator<(const GrowingLeaf& other) const {
    return weight != other.weight ? weight < other.weight : node > other.node;
  }
  // Whether its children are words that a table can hold.
  bool may_grow() const {
    return trits < kMostWordTrits &&
           (all_zeros || trits - zeros_ahead < kMostTritSpan);
  }
  GrowingLeaf child(std::size_t i, double frequency, std::int32_t at) const {
    const bool zeros = all_zeros && i == 0;
    return {
        .weight = weight * frequency,
        .node = at,
        .trits = trits + 1,
        .zeros_ahead = all_zeros && i != 0 ? trits : zeros_ahead,
        .all_zeros = zeros};
  }
};

// Nodes and leaves in the order in which they grew; a leaf's children are 0.
struct GrowingTree {
  std::vector<std::array<std::int32_t, 3>> children;
  std::vector<double> weights;
};

GrowingTree grow(
    const std::array<double, 3>& frequencies, std::int64_t most_words) {
  GrowingTree tree{{{}}, {1.0}};
  std::priority_queue<GrowingLeaf> leaves;
  leaves.push({1.0, 0, 0, 0, true});
  for (std::int64_t words = 1; words + 2 <= most_words && !leaves.empty();) {
    const GrowingLeaf leaf = leaves.top();
    leaves.pop();
    // Words that never occur need no longer ones.
    if (leaf.weight == 0.0) break;
    if (!leaf.may_grow()) continue;
    words += 2;
    for (std::size_t i = 0; i < 3; ++i) {
      const auto at = static_cast<std::int32_t>(tree.children.size());
      const GrowingLeaf child = leaf.child(i, frequencies[i], at);
      tree.children[static_cast<std::size_t>(leaf.node)][i] = at;
      tree.children.push_back({});
      tree.weights.push_back(child.weight);
      leaves.push(child);
    }
  }
  return tree;
}

// Renumbers nodes and words in the order of the walk.
class TreeWalk {
 public:
  explicit TreeWalk(const GrowingTree& from) : from_(from) { visit(0); }
  TritTree take() { return std::move(tree_); }

 private:
  struct Visited {
    std::int32_t next, likeliest;
    double weight;  // of the likeliest
  };

  Visited visit(std::int32_t node) {
    const auto at = static_cast<std::size_t>(node);
    const auto& children = from_.children[at];
    if (children[0] == 0) {
      const auto word = static_cast<std::int32_t>(tree_.words++);
      return {~word, word, from_.weights[at]};
    }
    const std::size_t id = tree_.next.size();
    tree_.next.push_back({});
    tree_.likeliest.push_back(0);
    Visited best{static_cast<std::int32_t>(id), 0, -1.0};
    for (std::size_t i = 0; i < 3; ++i) {
      const Visited child = visit(children[i]);
      tree_.next[id][kTritChildren[i]] = child.next;
      if (child.weight > best.weight) {
        best.likeliest = child.likeliest;
        best.weight = child.weight;
      }
    }
    tree_.likeliest[id] = best.likeliest;
    return best;
  }

  const GrowingTree& from_;
  TritTree tree_;
};

// The trits from the root to where a reader of a written tree is.
class WordPath {
 public:
  bool empty() const { return trits_.empty(); }
  void descend() { trits_.push_back(0); }

  // To the next node of the walk behind a leaf.
  void advance() {
    while (!empty() && trits_.back() == 2) trits_.pop_back();
    if (!empty()) ++trits_.back();
  }

  // 0 where a table cannot hold it.
  std::uint64_t word() const {
    const std::size_t size = trits_.size();
    const auto not_zero = [](int child) { return child != 0; };
    const auto first = std::find_if(trits_.begin(), trits_.end(), not_zero);
    const auto last = std::find_if(trits_.rbegin(), trits_.rend(), not_zero);
    if (size > kMostWordTrits || last.base() - first > kMostTritSpan) return 0;
    std::uint64_t word = static_cast<std::uint64_t>(size) << 56;
    if (first == trits_.end()) return word;
    word |= static_cast<std::uint64_t>(first - trits_.begin()) << 48;
    for (auto trit = first; trit != last.base(); ++trit) {
      const auto place = static_cast<unsigned>(trit - first);
      if (*trit != 0) {
        word |= std::uint64_t{1} << (*trit == 1 ? place : place + 24);
      }
    }
    return word;
  }

 private:
  std::vector<int> trits_;  // as children's places
};

void write_node(const TritTree& tree, std::int32_t node, BitWriter& to) {
  to.put(node >= 0 ? 1 : 0, 1);
  if (node < 0) return;
  for (const std::size_t i : kTritChildren) {
    write_node(tree, tree.next[static_cast<std::size_t>(node)][i], to);
  }
}

}  // namespace

TritTree grow_trit_tree(
    const std::array<std::int64_t, 3>& counts, std::int64_t most_words) {
  FETTLE_ASSERT(most_words >= 3);
  const auto sum = static_cast<double>(counts[0] + counts[1] + counts[2]);
  std::array<double, 3> frequencies;
  for (std::size_t i = 0; i < 3; ++i) {
    frequencies[i] = sum > 0 ? static_cast<double>(counts[i]) / sum : 1.0 / 3;
  }
  return TreeWalk(grow(frequencies, most_words)).take();
}

void write_trit_tree(const TritTree& tree, BitWriter& to) {
  write_node(tree, 0, to);
}

std::vector<std::uint64_t> read_trit_words(
    BitReader& from, std::int64_t most_words) {
  std::vector<std::uint64_t> words;
  WordPath path;
  if (from.get(1) == 0) return {};  // a word of no trits
  path.descend();
  while (!path.empty()) {
    if (from.get(1) == 1) {
      path.descend();
      continue;
    }
    const std::uint64_t word = path.word();
    if (word == 0 || from.ran_over()) return {};
    if (static_cast<std::int64_t>(words.size()) == most_words) return {};
    words.push_back(word);
    path.advance();
  }
  return words;
}

}  // namespace fettle::kernels
