// SPDX-License-Identifier: Apache-2.0
// The one source that includes c10d. The wheel has no headers of Gloo:
// gloo_headers/ declares what libtorch's own headers name.
#include "ranks/gloo_ranks.h"

#include <c10/util/Logging.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "ranks/heartbeat.h"

static_assert(
    TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11,
    "look through gloo_headers/ for this version of libtorch: its headers may "
    "call more of Gloo");

namespace fettle::ranks {
namespace {

constexpr int kFatal = 3;
using Bytes = std::vector<std::uint8_t>;

Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }
std::string text_of(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }

class StoreBoard : public Board {
 public:
  StoreBoard(c10::intrusive_ptr<c10d::TCPStore> store, std::string prefix)
      : tcp_(std::move(store)), prefix_(std::move(prefix)) {}

  void set(const std::string& key, const std::string& text) override {
    tcp_->set(prefix_ + key, bytes_of(text));
  }
  std::optional<std::string> get(const std::string& key) override {
    if (!tcp_->check({prefix_ + key})) return std::nullopt;
    return wait(key);
  }
  std::string wait(const std::string& key) override {
    return text_of(tcp_->get(prefix_ + key));
  }
  std::string set_first(
      const std::string& key, const std::string& text) override {
    return text_of(tcp_->compareSet(prefix_ + key, {}, bytes_of(text)));
  }
  std::unique_ptr<Board> another() override {
    return std::make_unique<StoreBoard>(
        c10::static_intrusive_pointer_cast<c10d::TCPStore>(tcp_->clone()),
        prefix_);
  }

 private:
  c10::intrusive_ptr<c10d::TCPStore> tcp_;
  std::string prefix_;
};

// The text of an error up to its backtrace.
std::string short_text(const std::exception& error) {
  const auto* const own = dynamic_cast<const c10::Error*>(&error);
  std::string text =
      own != nullptr ? own->what_without_backtrace() : error.what();
  return text.substr(0, 300);
}

class GlooRanks : public Group {
 public:
  GlooRanks(
      const Place& place,
      const GlooOptions& options,
      c10::intrusive_ptr<c10d::TCPStore> store)
      : place_(place) {
    const std::string prefix = fmt::format("fettle/{}/", place.attempt);
    board_ = std::make_unique<StoreBoard>(store, prefix);
    meet();
    // From now on a rank that is lost is told by its heartbeat.
    store->setTimeout(kCallTimeout);
    heartbeat_ = std::make_unique<Heartbeat>(
        board_->another(),
        HeartbeatOptions{
            .rank = place.rank,
            .size = place.size,
            .serves = place.rank == 0 && !place.launcher_serves,
            .beat = options.beat,
            .silence = options.silence,
            .on_loss = options.on_loss});
    auto gloo = c10d::ProcessGroupGloo::Options::create_default(kCallTimeout);
    group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>(prefix + "gloo", store),
        static_cast<int>(place.rank),
        static_cast<int>(place.size),
        gloo);
  }

  std::int64_t rank() const override { return place_.rank; }
  std::int64_t size() const override { return place_.size; }

  void all_to_all(
      const at::Tensor& out,
      const at::Tensor& in,
      const Splits& splits) override {
    at::Tensor to = out;
    at::Tensor from = in;
    auto received = splits.received;
    auto sent = splits.sent;
    for (std::int64_t r = 0; r < size(); ++r) {
      if (r != rank()) sent_bytes_ += sent[r] * in.element_size();
    }
    finish([&] { group_->alltoall_base(to, from, received, sent)->wait(); });
  }

  void broadcast(const at::Tensor& values, std::int64_t root) override {
    std::vector<at::Tensor> tensors{values};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    if (rank() == root) sent_bytes_ += values.nbytes() * (size() - 1);
    finish([&] { group_->broadcast(tensors, options)->wait(); });
  }

  std::vector<std::string> gather(const std::string& text) override {
    const std::string key = fmt::format("text/{}/", ++gathered_);
    std::vector<std::string> all;
    finish([&] {
      board_->set(key + std::to_string(rank()), text);
      for (std::int64_t r = 0; r < size(); ++r) {
        all.push_back(board_->wait(key + std::to_string(r)));
      }
    });
    return all;
  }

  void barrier() override {
    finish([&] { group_->barrier()->wait(); });
  }

  void begin(std::string work) override { heartbeat_->begin(std::move(work)); }
  void fail(std::string_view reason) noexcept override {
    heartbeat_->fail(reason);
  }
  void leave() override {
    barrier();
    heartbeat_->stop();
    // Rank 0's store goes last.
    if (rank() != 0) {
      board_->set(fmt::format("left/{}", rank()), "");
      return;
    }
    for (std::int64_t r = 1; r < size(); ++r) {
      board_->wait(fmt::format("left/{}", r));
    }
  }
  std::int64_t sent_bytes() const override { return sent_bytes_; }

 private:
  // A layer may take long, and a lost rank is told by its heartbeat.
  static constexpr std::chrono::hours kCallTimeout{24};
  static constexpr std::chrono::milliseconds kLook{50};
  static constexpr std::chrono::seconds kLinger{2};  // for others to read why

  // All ranks say that they are there before any speaks with another.
  void meet() {
    using Clock = std::chrono::steady_clock;
    board_->set(fmt::format("here/{}", rank()), "");
    const auto until = Clock::now() + std::chrono::seconds(place_.wait_seconds);
    std::set<std::int64_t> missing;
    for (std::int64_t r = 0; r < size(); ++r) missing.insert(r);
    while (true) {
      std::erase_if(missing, [&](std::int64_t r) {
        return board_->get(fmt::format("here/{}", r)).has_value();
      });
      if (missing.empty()) return;
      // Those who wait with rank 0 hear it from rank 0, which keeps the board.
      if (const auto said = board_->get("missing")) throw RankFailure(*said);
      if (Clock::now() >= until) break;
      std::this_thread::sleep_for(kLook);
    }
    const std::string text = fmt::format(
        "[ranks] {} {} not come to {}:{} within {} s; start all {} ranks, each "
        "with its own RANK, or give them longer by FETTLE_RANKS_WAIT=SECONDS",
        names(missing),
        missing.size() == 1 ? "has" : "have",
        place_.address,
        place_.port,
        place_.wait_seconds,
        size());
    board_->set("missing", text);
    if (rank() == 0 && !place_.launcher_serves) {
      std::this_thread::sleep_for(kLinger);
    }
    throw RankFailure(text);
  }

  // "rank 3", or "ranks 2, 3, 5".
  static std::string names(const std::set<std::int64_t>& ranks) {
    constexpr std::size_t kMost = 8;
    std::vector<std::string> named;
    for (const std::int64_t r : ranks) {
      named.push_back(named.size() < kMost ? std::to_string(r) : "…");
      if (named.size() > kMost) break;
    }
    return fmt::format(
        "{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(named, ", "));
  }

  template <typename Call>
  void finish(Call call) {
    try {
      call();
    } catch (const std::exception& error) {
      throw RankFailure(heartbeat_->explain(short_text(error)));
    }
  }

  Place place_;
  std::unique_ptr<StoreBoard> board_;
  std::unique_ptr<Heartbeat> heartbeat_;
  c10::intrusive_ptr<c10d::Backend> group_;
  std::int64_t gathered_ = 0;
  std::int64_t sent_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Group> open_gloo_ranks(
    const Place& place, const GlooOptions& options) {
  FLAGS_caffe2_log_level = kFatal;  // what goes wrong is told here
  c10d::TCPStoreOptions store;
  store.port = static_cast<std::uint16_t>(place.port);
  store.isServer = place.rank == 0 && !place.launcher_serves;
  store.waitWorkers = false;
  // Connecting takes up to twice as long.
  store.timeout = std::chrono::milliseconds(500 * place.wait_seconds);
  c10::intrusive_ptr<c10d::TCPStore> tcp;
  try {
    tcp = c10::make_intrusive<c10d::TCPStore>(place.address, store);
  } catch (const std::exception& error) {
    throw RankFailure(fmt::format(
        "[ranks] rank {} can't meet the others at {}:{}: {}; check MASTER_ADDR "
        "and MASTER_PORT, and that rank 0 runs",
        place.rank,
        place.address,
        place.port,
        short_text(error)));
  }
  try {
    return std::make_unique<GlooRanks>(place, options, tcp);
  } catch (const RankFailure&) {
    throw;
  } catch (const std::exception& error) {
    throw RankFailure(fmt::format(
        "[ranks] rank {} can't reach the others: {}; on several machines set "
        "GLOO_SOCKET_IFNAME to the network device that connects them",
        place.rank,
        short_text(error)));
  }
}

}  // namespace fettle::ranks
