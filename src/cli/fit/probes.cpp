// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/probes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "cli/quality.h"
#include "io/checksum.h"
#include "sweep/data.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;

// The KL that says most: large enough to be sure, small enough to be one that
// somebody would plan for.
constexpr double kWanted = 0.03;
constexpr std::int64_t kTokens = 16384;  // to measure on
// To cut and round by; more tokens change what is measured by a few percent
// (docs/fit-price.md).
constexpr std::int64_t kFitTokens = 32768;
constexpr std::int64_t kLeastTokens = 2048;

struct ProbeText {
  std::string name;
  std::vector<sweep::EvalSet> sets;
};

std::int64_t tokens_of(const std::vector<sweep::EvalSet>& sets) {
  std::int64_t tokens = 0;
  for (const auto& set : sets) tokens += sweep::count_tokens(set.sequences);
  return tokens;
}

// So many tokens of each set at most.
void shorten(std::vector<sweep::EvalSet>& sets) {
  const std::int64_t most =
      kTokens /
      static_cast<std::int64_t>(std::max<std::size_t>(sets.size(), 1));
  for (sweep::EvalSet& set : sets) {
    std::int64_t tokens = 0;
    std::size_t count = 0;
    while (count < set.sequences.size() && tokens < most) {
      tokens += static_cast<std::int64_t>(set.sequences[count++].ids.size());
    }
    set.sequences.resize(count);
  }
}

class Prober {
 public:
  explicit Prober(const ProbeInput& input)
      : input_(input), reader_(input.reader), data_(input.folder.data()) {
    if (data_.tokens == 0 || data_.tokens > kFitTokens) {
      data_.tokens = kFitTokens;
    }
  }

  std::optional<Probes> run() {
    choose();
    Probes made;
    for (MeasuredProbe& point : points_) {
      const std::string key = key_of(point);
      Json result = input_.folder.noted(file(point), key);
      if (result.is_null()) {
        if (!make(point)) return {};
        result = measured(point);
        input_.folder.note(file(point), key, result);
      }
      point.kl = result.at("kl").get<double>();
      for (const Json& one : result.at("files")) {
        point.files.push_back(
            {one.at("file").get<std::string>(), one.at("kl").get<double>()});
      }
      made.text = result.at("text").get<std::string>();
    }
    for (const char* name : {"probe-cut", "probe-rounded", "probe-both"}) {
      input_.folder.drop(name);
    }
    made.points = std::move(points_);
    return made;
  }

 private:
  static std::string file(const MeasuredProbe& point) {
    return "measured-" + point.name;
  }

  // Of plain plans that `wanted` takes, the one whose expected KL is nearest to
  // the one that says most.
  template <typename Wanted>
  std::optional<chain::PlainChoice> nearest(const Wanted& wanted) const {
    std::optional<chain::PlainChoice> best;
    double least = 0;
    for (const chain::PlainChoice& choice : chain::plain_grid(input_.table)) {
      if (!wanted(choice)) continue;
      const auto plan = plan_of(choice);
      if (!plan || plan->nats() <= 0) continue;
      const double far = std::abs(std::log(plan->nats() / kWanted));
      if (best && far >= least) continue;
      best = choice;
      least = far;
    }
    return best;
  }

  std::optional<chain::FitPlan> plan_of(
      const chain::PlainChoice& choice) const {
    return chain::plain_plan(reader_, input_.table, input_.scores, choice);
  }

  void choose() {
    using chain::PlainChoice;
    const auto cut = nearest(
        [](const PlainChoice& c) { return c.keep < 1 && c.scheme.keep; });
    const auto rounded = nearest(
        [](const PlainChoice& c) { return c.keep == 1 && !c.scheme.keep; });
    const auto add = [&](const char* name, const PlainChoice& choice) {
      points_.push_back({name, *plan_of(choice), 0});
    };
    if (cut) add("cut", *cut);
    if (rounded) add("rounded", *rounded);
    if (cut && rounded) add("both", {cut->keep, rounded->scheme});
  }

  fs::path plan_file(const MeasuredProbe& point, const char* stage) const {
    return input_.folder.path() /
           fmt::format("probe-{}-{}.json", point.name, stage);
  }

  std::string key_of(const MeasuredProbe& point) const {
    chain::trim_plan(reader_, input_.table, point.plan)
        .save(plan_file(point, "trim"));
    chain::quant_plan(reader_, input_.table, point.plan)
        .save(plan_file(point, "quant"));
    io::Hasher hasher;
    hasher.update(input_.folder.key_of("scores"));
    hasher.update(input_.folder.key_of("errors"));
    hasher.update(fmt::format("{} by file\n", data_.tokens));
    for (const char* stage : {"trim", "quant"}) {
      hasher.update(io::hash_file(plan_file(point, stage)));
    }
    for (const auto& held : data_files(input_.held)) {
      hasher.update(io::hash_file(held.path));
    }
    return hasher.digest();
  }

  bool cut(const MeasuredProbe& point) {
    Arguments arguments{
        input_.folder.model(), "--plan=" + plan_file(point, "trim").string()};
    append(arguments, data_.arguments());
    return input_.folder.run({"probe-cut", "trim", arguments, {"scores"}});
  }

  bool round(
      const MeasuredProbe& point,
      const std::string& name,
      const std::string& model) {
    Arguments arguments{model, "--plan=" + plan_file(point, "quant").string()};
    append(arguments, input_.quant);
    append(arguments, data_.arguments());
    return input_.folder.run({name, "quant", arguments, {"errors"}});
  }

  bool make(const MeasuredProbe& point) {
    if (point.name == "cut") return cut(point);
    if (point.name == "rounded") {
      return round(point, "probe-rounded", input_.folder.model());
    }
    return cut(point) && round(
                             point,
                             "probe-both",
                             (input_.folder.path() / "probe-cut").string());
  }

  Json measured(const MeasuredProbe& point) {
    const ProbeText& text = probe_text();
    const Json quality = measure_quality(
        input_.session,
        {text.sets,
         input_.folder.model(),
         input_.folder.path() / ("probe-" + point.name)});
    return {
        {"kl", quality.at("kl")},
        {"files", quality.at("files")},
        {"text", text.name}};
  }

  // Windows of the data that neither scores nor repairs have seen; where there
  // are none, held-out text, and at last what they have seen.
  const ProbeText& probe_text() {
    if (!text_.sets.empty()) return text_;
    text_ = {"text of --data that nothing was fitted to", unseen()};
    if (tokens_of(text_.sets) >= kLeastTokens) return text_;
    const FitData& data = input_.folder.data();
    const bool held = !input_.held.empty();
    text_.name = held ? "text of --held"
                      : "the text that cuts were fitted to, which flatters";
    text_.sets = held_out(
        input_.session,
        reader_,
        {held ? input_.held : data.files,
         window_tokens(reader_.config(), data.seq_len),
         data.flags});
    shorten(text_.sets);
    return text_;
  }

  std::vector<sweep::EvalSet> unseen() const {
    const FitData& data = input_.folder.data();
    if (data.tokens == 0) return {};
    const auto tokenizer = input_.session.tokenizer(reader_.folder());
    const sweep::DataSource source{
        tokenizer,
        input_.session.sample_options(reader_, data.flags),
        window_tokens(reader_.config(), data.seq_len)};
    const auto files = data_files(data.files);
    const std::uint64_t seed = input_.session.seed();
    const auto seen = sweep::load_calibration(files, source, data.tokens, seed);
    auto more =
        sweep::load_calibration(files, source, data.tokens + kTokens, seed);
    std::vector<sweep::EvalSet> sets;
    for (std::size_t f = 0; f < files.size(); ++f) {
      const std::size_t first = f > 0 ? more.ends[f - 1] : 0;
      const std::size_t used = seen.ends[f] - (f > 0 ? seen.ends[f - 1] : 0);
      sweep::EvalSet set{files[f].path.string(), {}};
      for (std::size_t i = first + used; i < more.ends[f]; ++i) {
        set.sequences.push_back(std::move(more.sequences[i]));
      }
      if (!set.sequences.empty()) sets.push_back(std::move(set));
    }
    return sets;
  }

  const ProbeInput& input_;
  const model::ModelReader& reader_;
  FitData data_;  // that points are made by
  std::vector<MeasuredProbe> points_;
  ProbeText text_;
};

}  // namespace

chain::Calibration Probes::calibration(const chain::PriceTable& table) const {
  std::vector<chain::Probe> probes;
  for (const MeasuredProbe& point : points) {
    probes.push_back({point.plan, point.kl});
  }
  return chain::fitted_calibration(table, probes);
}

std::vector<chain::Domain> Probes::domains() const {
  std::vector<chain::FileLoss> cut, rounded;
  for (const MeasuredProbe& point : points) {
    if (point.name == "cut") cut = point.files;
    if (point.name == "rounded") rounded = point.files;
  }
  return chain::domains_of(cut, rounded);
}

std::optional<Probes> measure_probes(const ProbeInput& input) {
  return Prober(input).run();
}

}  // namespace fettle::cli
