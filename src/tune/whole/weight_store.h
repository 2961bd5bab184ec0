// SPDX-License-Identifier: Apache-2.0
// Masters and moments of whole weights on disk, where they are 12 bytes a value
// and memory holds those of a few rows at a time. Two files take turns: between
// two saved states one of them is changed in place, the other is the last saved
// state, so that saving copies nothing and a killed run finds it whole.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/stopwatch.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "model/weights/model_reader.h"
#include "tune/part/row_pieces.h"

namespace fettle::tune {

class WeightStore {
 public:
  // Values and moments of some rows (row_pieces.h): fp32 on the CPU, as stored.
  struct Record {
    at::Tensor value, first, second;
  };

  // Files FOLDER/NAME-0.safetensors and -1. Weights are numbered as in `ids`.
  WeightStore(
      std::filesystem::path folder,
      std::string name,
      const model::ModelConfig& config,
      std::vector<model::WeightId> ids);

  // Begins with the model's own values and moments of 0.
  void create(const model::ModelReader& reader);
  // Goes on from the state saved as `generation`. Throws UserError when the
  // file is not there or of another model.
  void open(int generation);

  // Weight `i` as of its last update, piece by piece.
  using Visit =
      std::function<void(std::int64_t first_row, const at::Tensor& value)>;
  void read(std::size_t i, const Visit& visit) const;
  // All of some weights: what `change` makes of a record is written back. Up to
  // kUpdatesAtOnce pieces are at work at a time, so that the disk does not wait
  // for arithmetic, nor that for the disk.
  using Change =
      std::function<void(std::size_t i, const RowPiece& rows, Record& record)>;
  static constexpr std::int64_t kUpdatesAtOnce = 2;
  void update(const std::vector<std::size_t>& weights, const Change& change);
  // Weights [first, first + count) will be read soon.
  void will_need(std::size_t first, std::size_t count) const;

  // Makes what was written durable and gives its generation, which stays as it
  // is until the next save() is followed by an update.
  int save();

  std::int64_t bytes() const;  // of one file
  // Seconds that threads have spent reading and writing, summed.
  double io_seconds() const { return io_time_.seconds(); }
  // Copies the values into a safetensors file under the weights' own names.
  void write_values(const std::filesystem::path& path) const;
  // Names of both files.
  std::vector<std::string> files() const;

 private:
  std::filesystem::path path(int generation) const;
  std::string key(std::size_t i, const char* what) const;
  std::vector<io::TensorSpec> specs() const;
  at::Tensor get(std::size_t i, const char* what, const RowPiece& rows) const;
  void put(
      std::size_t i,
      const char* what,
      const RowPiece& rows,
      const at::Tensor& tensor) const;
  void begin_turn();

  std::filesystem::path folder_;
  std::string name_;
  const model::ModelConfig& config_;
  std::vector<model::WeightId> ids_;
  io::SafetensorsFile header_;
  std::unique_ptr<io::InputFile> in_[2];
  std::unique_ptr<io::OutputFile> out_;  // of the turn in progress
  int turn_ = 0;
  bool saved_ = false;  // nothing was written since save()
  mutable TimeSpent io_time_;
  std::vector<char> behind_;  // whether still in the other file
};

}  // namespace fettle::tune
