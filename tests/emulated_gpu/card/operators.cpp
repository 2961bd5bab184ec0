// SPDX-License-Identifier: Apache-2.0
// ATen's operators on the emulated card: each runs the CPU's code on the card's
// bytes. What libtorch's CUDA refuses for where tensors lie is refused here.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <set>
#include <string>

#include "memory.h"

namespace fettle::kernels::emulated {
namespace {

using Stack = torch::jit::Stack;

// The same bytes as a tensor of the CPU, whose storage may be replaced by the
// operator where it makes the tensor larger.
at::Tensor seen_by_cpu(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  const c10::Storage& storage = tensor.storage();
  auto* kept = new c10::Storage(storage);
  c10::DataPtr bytes(
      card_memory().view(storage.data()),
      kept,
      [](void* of) { delete static_cast<c10::Storage*>(of); },
      c10::kCPU);
  const c10::Storage view(
      c10::Storage::use_byte_size_t{},
      storage.nbytes(),
      std::move(bytes),
      c10::GetAllocator(c10::kCPU),
      /*resizable=*/true);
  at::Tensor result = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(view),
      c10::DispatchKeySet(c10::DispatchKey::CPU),
      tensor.dtype());
  auto* impl = result.unsafeGetTensorImpl();
  impl->set_storage_offset(tensor.storage_offset());
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides());
  return result;
}

at::Tensor on_card(const at::Tensor& host) {
  at::Tensor result = at::detail::empty_strided_generic(
      host.sizes(),
      host.strides(),
      &card_memory(),
      c10::DispatchKeySet(c10::DispatchKey::CUDA),
      host.scalar_type());
  seen_by_cpu(result).copy_(host);
  return result;
}

// One operator's call: its tensors exchanged for the CPU's view of them and
// back.
class Call {
 public:
  Call(const c10::OperatorHandle& op, Stack& stack)
      : op_(op),
        stack_(stack),
        first_(stack.size() - op.schema().arguments().size()) {}

  void run() {
    const std::lock_guard lock(card_lock());
    work_ = streams().begin(streams().queue(current_stream()));
    for (std::size_t i = first_; i < stack_.size(); ++i) {
      const auto* alias = op_.schema().arguments()[i - first_].alias_info();
      argument(stack_[i], alias != nullptr && alias->isWrite());
    }
    check_places();
    if (multiplies()) card_memory().reserve_workspace();
    op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
    for (const Pair& pair : pairs_) {
      if (pair.written) follow(pair);
    }
    const std::size_t results = op_.schema().returns().size();
    for (std::size_t i = stack_.size() - results; i < stack_.size(); ++i) {
      result(stack_[i]);
    }
    if (waits()) streams().wait(streams().queue(current_stream()));
  }

 private:
  struct Pair {
    at::Tensor card, cpu;
    bool written;
  };

  void argument(c10::IValue& value, bool written) {
    if (value.isTensor()) {
      value = exchanged(value.toTensor(), written);
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector()) {
        list.push_back(exchanged(t, written));
      }
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& t :
           value.toOptionalTensorVector()) {
        list.push_back(
            t ? std::optional(exchanged(*t, written)) : std::nullopt);
      }
      value = list;
    } else if (value.isDevice()) {
      value = c10::Device(c10::kCPU);
    }
  }

  at::Tensor exchanged(const at::Tensor& tensor, bool written) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {
      // As CUDA: numbers may come along.
      if (tensor.dim() > 0) host_ = true;
      return tensor;
    }
    card_memory().use(tensor.storage().data(), work_, written);
    pairs_.push_back({tensor, seen_by_cpu(tensor), written});
    return pairs_.back().cpu;
  }

  // Whether libtorch's CUDA has the host wait: to have a number, or to know the
  // size of what comes out.
  bool waits() const {
    static const std::set<std::string> names{
        "aten::_local_scalar_dense",
        "aten::equal",
        "aten::nonzero",
        "aten::masked_select",
        "aten::bincount",
        "aten::_unique2",
        "aten::unique_dim",
        "aten::unique_consecutive",
        "aten::repeat_interleave"};
    const std::string& name = op_.operator_name().name;
    if (names.contains(name)) return true;
    return name.starts_with("aten::index") &&
           std::ranges::any_of(pairs_, [](const Pair& pair) {
             return pair.card.scalar_type() == at::kBool;
           });
  }

  bool multiplies() const {
    static const std::set<std::string> names{
        "aten::mm",
        "aten::addmm",
        "aten::addmm_",
        "aten::bmm",
        "aten::baddbmm",
        "aten::mv",
        "aten::addmv",
        "aten::_grouped_mm"};
    return names.contains(op_.operator_name().name);
  }

  void check_places() const {
    // Of these, indices may lie on the host.
    static const std::set<std::string> apart{
        "aten::index",
        "aten::index_put",
        "aten::index_put_",
        "aten::_index_put_impl_"};
    const std::string& name = op_.operator_name().name;
    if (!host_ || pairs_.empty() || apart.contains(name)) return;
    TORCH_CHECK(
        false,
        "Expected all tensors to be on the same device, but ",
        name,
        " got some of cuda:0 and some of the CPU");
  }

  // What an operator did to the shape of a tensor that it wrote.
  void follow(const Pair& pair) {
    auto* card = pair.card.unsafeGetTensorImpl();
    const c10::Storage& now = pair.cpu.storage();
    if (now.data() != card_memory().view(card->storage().data())) {
      c10::DataPtr bytes = card_memory().allocate(now.nbytes());
      if (now.nbytes() > 0) {
        std::memcpy(card_memory().view(bytes.get()), now.data(), now.nbytes());
      }
      card_memory().use(bytes.get(), work_, true);
      card->unsafe_storage().set_data_ptr(std::move(bytes));
      card->unsafe_storage().set_nbytes(now.nbytes());
    }
    if (pair.cpu.sizes() != pair.card.sizes() ||
        pair.cpu.strides() != pair.card.strides()) {
      card->set_sizes_and_strides(pair.cpu.sizes(), pair.cpu.strides());
    }
  }

  void result(c10::IValue& value) {
    if (value.isTensor()) {
      value = brought(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector()) {
        list.push_back(brought(t));
      }
      value = list;
    }
  }

  at::Tensor brought(const at::Tensor& cpu) {
    if (!cpu.defined()) return cpu;
    for (const Pair& pair : pairs_) {
      if (pair.cpu.is_same(cpu)) return pair.card;
    }
    for (const Pair& pair : pairs_) {
      if (!pair.cpu.storage().is_alias_of(cpu.storage())) continue;
      at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(
          c10::TensorImpl::VIEW,
          c10::Storage(pair.card.storage()),
          pair.card.key_set(),
          cpu.dtype());
      view.unsafeGetTensorImpl()->set_storage_offset(cpu.storage_offset());
      view.unsafeGetTensorImpl()->set_sizes_and_strides(
          cpu.sizes(), cpu.strides());
      return view;
    }
    at::Tensor result = on_card(cpu);
    card_memory().use(result.storage().data(), work_, true);
    return result;
  }

  const c10::OperatorHandle& op_;
  Stack& stack_;
  std::size_t first_;
  Use work_;
  std::vector<Pair> pairs_;
  bool host_ = false;  // a tensor of the host is among the arguments
};

void run_on_cpu(const c10::OperatorHandle& op, Stack* stack) {
  Call(op, *stack).run();
}

at::Tensor empty(
    at::IntArrayRef size,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>,
    std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(
      size,
      &card_memory(),
      c10::DispatchKeySet(c10::DispatchKey::CUDA),
      c10::dtype_or_default(dtype),
      format);
}

at::Tensor empty_strided(
    at::IntArrayRef size,
    at::IntArrayRef stride,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>) {
  return at::detail::empty_strided_generic(
      size,
      stride,
      &card_memory(),
      c10::DispatchKeySet(c10::DispatchKey::CUDA),
      c10::dtype_or_default(dtype));
}

// Between the host and the card, or on it. What needn't be waited for is put
// off; from memory that isn't pinned, CUDA takes the bytes at once.
at::Tensor& copy(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  const std::lock_guard lock(card_lock());
  Queue& queue = streams().queue(current_stream());
  const bool off = non_blocking && (to.is_cpu() || from.is_pinned());
  const auto done = [to_cpu = seen_by_cpu(to), from_cpu = seen_by_cpu(from)] {
    at::Tensor into = to_cpu;
    into.copy_(from_cpu);
  };
  const Use work =
      off ? streams().put_off(queue, done) : streams().begin(queue);
  if (from.is_cuda()) card_memory().use(from.storage().data(), work, false);
  if (to.is_cuda()) card_memory().use(to.storage().data(), work, true);
  if (off) return to;
  done();
  if (from.is_cpu() || to.is_cpu()) streams().wait(queue);
  return to;
}

}  // namespace
}  // namespace fettle::kernels::emulated

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<
             &fettle::kernels::emulated::run_on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", fettle::kernels::emulated::empty);
  m.impl("empty_strided", fettle::kernels::emulated::empty_strided);
  m.impl("copy_", fettle::kernels::emulated::copy);
}
