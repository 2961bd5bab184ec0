// SPDX-License-Identifier: Apache-2.0
#include "model/weights/stored_form.h"

#include <memory>

#include "core/error.h"

namespace fettle::model {

std::int64_t StoredForm::bytes() const {
  std::uint64_t total = 0;
  for (const StoredSpan& span : spans()) total += span.bytes;
  return static_cast<std::int64_t>(total);
}

StoredForm::BlockBytes StoredForm::read_blocks(const io::Checkpoint&) const {
  FETTLE_ASSERT(blocks().has_value());
  return {};
}

at::Tensor read_span(const io::Checkpoint& checkpoint, const StoredSpan& span) {
  at::Tensor bytes =
      at::empty({static_cast<std::int64_t>(span.bytes)}, at::kByte);
  checkpoint.read_range(
      span.tensor->name,
      span.offset,
      {static_cast<std::byte*>(bytes.data_ptr()), bytes.nbytes()});
  return bytes;
}

std::vector<StoredSpan> PackedForm::spans() const {
  return {{&tensor_, 0, tensor_.bytes()}};
}

StoredForm::Rows PackedForm::open(const io::Checkpoint& checkpoint) const {
  const auto matrix = std::make_shared<const kernels::PackedMatrix>(from_stored(
      read_span(checkpoint, {&tensor_, 0, tensor_.bytes()}), tensor_.name));
  return [matrix](std::int64_t first, const at::Tensor& out) {
    kernels::unpack_rows(*matrix, first, out);
  };
}

}  // namespace fettle::model
