// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/weight_store.h"

#include <fmt/format.h>

#include "artifact/tensor_file.h"
#include "core/bytes.h"
#include "core/error.h"
#include "model/weights/side_by_side.h"
#include "tune/whole/weight_delta.h"

namespace fettle::tune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kValue = "value";
constexpr const char* kFirst = "first";
constexpr const char* kSecond = "second";

std::vector<std::int64_t> shape_of(
    std::vector<std::int64_t> shape, const RowPiece& rows) {
  shape[0] = rows.count;
  return shape;
}

// Bytes before a tensor's row.
std::uint64_t row_offset(const io::TensorInfo& info, const RowPiece& rows) {
  return info.bytes() / static_cast<std::uint64_t>(info.shape[0]) *
         static_cast<std::uint64_t>(rows.first);
}

}  // namespace

WeightStore::WeightStore(
    fs::path folder,
    std::string name,
    const model::ModelConfig& config,
    std::vector<model::WeightId> ids)
    : folder_(std::move(folder)),
      name_(std::move(name)),
      config_(config),
      ids_(std::move(ids)),
      behind_(ids_.size(), 0) {}

fs::path WeightStore::path(int generation) const {
  return folder_ / fmt::format("{}-{}.safetensors", name_, generation);
}

std::string WeightStore::key(std::size_t i, const char* what) const {
  return fmt::format("{}.{}", weight_key(name_, ids_[i]), what);
}

std::vector<io::TensorSpec> WeightStore::specs() const {
  std::vector<io::TensorSpec> specs;
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    for (const char* what : {kValue, kFirst, kSecond}) {
      specs.push_back(
          {key(i, what),
           io::DType::kF32,
           model::weight_shape(config_, ids_[i])});
    }
  }
  return specs;
}

void WeightStore::create(const model::ModelReader& reader) {
  const std::int64_t needed = 2 * bytes();
  const auto free = static_cast<std::int64_t>(fs::space(folder_).available);
  if (free < needed) {
    throw UserError(
        "tune",
        folder_.string(),
        fmt::format(
            "expected {} of free disk for masters and moments, twice; found "
            "{}; choose another folder, or train less with --match",
            format_bytes(needed),
            format_bytes(free)));
  }
  io::SafetensorsWriter writer(io::create_file(path(0)), specs());
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    const auto shape = model::weight_shape(config_, ids_[i]);
    reader.read_rows(
        ids_[i], piece_rows(shape), [&](std::int64_t, const at::Tensor& rows) {
          writer.write(key(i, kValue), artifact::tensor_bytes(rows));
        });
    for (const char* moment : {kFirst, kSecond}) {
      for (const RowPiece& rows : row_pieces(shape)) {
        const at::Tensor zeros = at::zeros(shape_of(shape, rows), at::kFloat);
        writer.write(key(i, moment), artifact::tensor_bytes(zeros));
      }
    }
  }
  writer.finish();
  open(0);
}

void WeightStore::open(int generation) {
  in_[generation] = io::open_file(path(generation));
  header_ = io::SafetensorsFile::parse(*in_[generation]);
  for (const io::TensorSpec& spec : specs()) {
    const io::TensorInfo* found = header_.find(spec.name);
    if (found != nullptr && found->dtype == spec.dtype &&
        found->shape == spec.shape) {
      continue;
    }
    throw UserError(
        "tune",
        path(generation).string(),
        fmt::format(
            "expected {} of this model, found none; the file is of another run",
            spec.name));
  }
  turn_ = generation;
  saved_ = true;
}

at::Tensor WeightStore::get(
    std::size_t i, const char* what, const RowPiece& rows) const {
  const io::TensorInfo* info = header_.find(key(i, what));
  at::Tensor tensor = at::empty(shape_of(info->shape, rows), at::kFloat);
  const int generation = behind_[i] != 0 ? 1 - turn_ : turn_;
  const TimeSpent::Piece timed(io_time_);
  in_[generation]->read_at(
      info->begin + row_offset(*info, rows), artifact::writable_bytes(tensor));
  return tensor;
}

void WeightStore::put(
    std::size_t i,
    const char* what,
    const RowPiece& rows,
    const at::Tensor& tensor) const {
  const io::TensorInfo* info = header_.find(key(i, what));
  const TimeSpent::Piece timed(io_time_);
  out_->write_at(
      info->begin + row_offset(*info, rows), artifact::tensor_bytes(tensor));
}

void WeightStore::read(std::size_t i, const Visit& visit) const {
  for (const RowPiece& rows :
       row_pieces(model::weight_shape(config_, ids_[i]))) {
    visit(rows.first, get(i, kValue, rows));
  }
}

// The first update after a save goes to the other file, which then lacks all
// weights until they are written again.
void WeightStore::begin_turn() {
  turn_ = 1 - turn_;
  saved_ = false;
  const io::InputFile& other = *in_[1 - turn_];
  std::error_code none;
  if (fs::file_size(path(turn_), none) != other.size() || none) {
    // Gets the other file's header and room; the bytes follow weight by weight.
    // Its end is written after the header, so that one cut short is not kept.
    std::vector<std::byte> header(header_.data_begin());
    other.read_at(0, header);
    const auto file = io::create_file(path(turn_));
    file->reserve(other.size());
    file->write_at(0, header);
    file->write_at(other.size() - 1, std::vector<std::byte>(1));
  }
  in_[turn_] = io::open_file(path(turn_));
  out_ = io::update_file(path(turn_));
  behind_.assign(ids_.size(), 1);
}

void WeightStore::update(
    const std::vector<std::size_t>& weights, const Change& change) {
  if (weights.empty()) return;
  if (saved_) begin_turn();
  std::vector<std::pair<std::size_t, RowPiece>> pieces;
  for (const std::size_t i : weights) {
    for (const RowPiece& rows :
         row_pieces(model::weight_shape(config_, ids_[i]))) {
      pieces.emplace_back(i, rows);
    }
  }
  const auto update_piece = [&](std::int64_t piece) {
    const auto& [i, rows] = pieces[piece];
    Record record{
        get(i, kValue, rows), get(i, kFirst, rows), get(i, kSecond, rows)};
    change(i, rows, record);
    put(i, kValue, rows, record.value);
    put(i, kFirst, rows, record.first);
    put(i, kSecond, rows, record.second);
  };
  model::run_side_by_side(
      std::ssize(pieces), /*on_cpu=*/true, update_piece, kUpdatesAtOnce);
  for (const std::size_t i : weights) behind_[i] = 0;
}

void WeightStore::will_need(std::size_t first, std::size_t count) const {
  if (count == 0) return;
  const std::uint64_t begin = header_.find(key(first, kValue))->begin;
  const std::uint64_t end = header_.find(key(first + count - 1, kSecond))->end;
  in_[behind_[first] != 0 ? 1 - turn_ : turn_]->will_need(begin, end - begin);
}

int WeightStore::save() {
  if (saved_) return turn_;
  std::vector<std::size_t> left;
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (behind_[i] != 0) left.push_back(i);
  }
  update(left, [](std::size_t, const RowPiece&, Record&) {});
  out_->close();
  out_.reset();
  saved_ = true;
  return turn_;
}

std::int64_t WeightStore::bytes() const {
  std::uint64_t total = 0;
  for (const io::TensorSpec& spec : specs()) total += spec.bytes();
  return static_cast<std::int64_t>(total);
}

void WeightStore::write_values(const fs::path& path) const {
  std::vector<io::TensorSpec> values;
  for (const model::WeightId& id : ids_) {
    values.push_back(
        {weight_key(name_, id),
         io::DType::kF32,
         model::weight_shape(config_, id)});
  }
  io::SafetensorsWriter writer(io::create_file(path), values);
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    read(i, [&](std::int64_t, const at::Tensor& value) {
      writer.write(values[i].name, artifact::tensor_bytes(value));
    });
  }
  writer.finish();
}

std::vector<std::string> WeightStore::files() const {
  return {path(0).filename().string(), path(1).filename().string()};
}

}  // namespace fettle::tune
