// SPDX-License-Identifier: Apache-2.0
#include "tune/teacher.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "core/error.h"
#include "sweep/head.h"
#include "tiny_model.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

struct HeadFixture {
  TemporaryFolder folder;
  std::unique_ptr<model::CausalLm> student, teacher;
  at::Tensor hidden, other, targets;

  HeadFixture() {
    write_tiny_model(folder.path() / "a", 1);
    write_tiny_model(folder.path() / "b", 2);
    student = open_model(folder.path() / "a");
    teacher = open_model(folder.path() / "b");
    hidden = at::sin(at::arange(7 * kHidden, at::kFloat)).view({7, kHidden});
    other = at::cos(at::arange(7 * kHidden, at::kFloat)).view({7, kHidden});
    targets = at::tensor({3, -100, 5, 0, 22, -100, 7}, at::kLong);
  }
};

}  // namespace

TEST_CASE_METHOD(HeadFixture, "a teacher names its likeliest tokens") {
  const auto rows = sweep::head_teacher(*teacher, other, targets, 4);
  const at::Tensor p = model::logits(*teacher, other).softmax(-1);
  for (const std::int64_t i : {0, 2, 3, 4, 6}) {
    const auto [values, ids] = p[i].topk(4);
    CHECK(rows.ids[i].equal(ids));
    CHECK(at::allclose(rows.log_probs[i].exp(), values, 1e-5));
    CHECK(
        rows.rest[i].item<float>() ==
        Approx(1.0F - values.sum().item<float>()).epsilon(1e-4));
  }
}

TEST_CASE_METHOD(HeadFixture, "distillation's gradient is autograd's") {
  const auto rows = sweep::head_teacher(*teacher, other, targets, 4);
  const auto found = sweep::head_distill_with_gradient(
      *student, {hidden, targets}, rows, {.nll = 0.3, .kl = 0.7});

  const at::Tensor x = hidden.clone().set_requires_grad(true);
  const at::Tensor scored = targets.ge(0).nonzero().squeeze(1);
  const auto& globals = student->globals();
  const at::Tensor rows_of_x = x.index_select(0, scored);
  const at::Tensor normed =
      rows_of_x *
      at::rsqrt(
          rows_of_x.square().mean(-1, true) + student->config().norm_eps) *
      globals.final_norm;
  const at::Tensor log_p = at::mm(normed, globals.lm_head.t()).log_softmax(-1);
  const auto taught = rows.rows(scored);
  const at::Tensor nll =
      -log_p.gather(1, targets.index_select(0, scored).unsqueeze(1)).squeeze(1);
  const at::Tensor log_top = log_p.gather(1, taught.ids);
  const at::Tensor q = taught.log_probs.exp();
  const at::Tensor p_rest = 1.0 - log_top.exp().sum(-1);
  const at::Tensor kl = (q * (taught.log_probs - log_top)).sum(-1) +
                        taught.rest * (taught.rest.log() - p_rest.log());
  torch::autograd::backward({(0.3 * nll + 0.7 * kl).sum()});

  // Rounding of sums over a vocabulary of 23 in fp32.
  CHECK(at::allclose(found.nll.index_select(0, scored), nll, 1e-5, 1e-6));
  CHECK(at::allclose(found.kl.index_select(0, scored), kl, 1e-4, 1e-6));
  CHECK(at::allclose(found.d_hidden, x.grad(), 1e-4, 1e-6));
  CHECK(found.nll[1].item<float>() == 0.0F);
  CHECK(found.kl[1].item<float>() == 0.0F);
}

TEST_CASE_METHOD(HeadFixture, "with the whole vocabulary the KL is exact") {
  const auto rows = sweep::head_teacher(*teacher, other, targets, kVocab);
  const auto found = sweep::head_distill_with_gradient(
      *student, {hidden, targets}, rows, {.nll = 0.0, .kl = 1.0});
  const auto full =
      sweep::head_compare(*student, hidden, *teacher, other, targets);
  CHECK(at::allclose(found.kl, full.kl, 1e-4, 1e-6));
  // Fewer tokens can only hide a difference.
  const auto some = sweep::head_distill_with_gradient(
      *student,
      {hidden, targets},
      sweep::head_teacher(*teacher, other, targets, 3),
      {.nll = 0.0, .kl = 1.0});
  CHECK((some.kl <= full.kl + 1e-6).all().item<bool>());
  CHECK(some.kl.sum().item<float>() > 0.0F);
}

TEST_CASE_METHOD(HeadFixture, "a model has nothing to learn from itself") {
  const auto rows = sweep::head_teacher(*student, hidden, targets, 5);
  const auto found = sweep::head_distill_with_gradient(
      *student, {hidden, targets}, rows, {.nll = 0.0, .kl = 1.0});
  CHECK(found.kl.abs().max().item<float>() < 1e-6F);
  CHECK(found.d_hidden.abs().max().item<float>() < 1e-6F);
}

TEST_CASE_METHOD(HeadFixture, "a teacher's files belong to one run") {
  const TeacherFiles files(folder.path(), 7, 4);
  files.claim({{"run", 1}});
  CHECK_FALSE(files.has(3));
  CHECK_THROWS_AS(files.read(3), UserError);
  const auto rows = sweep::head_teacher(*teacher, other, targets, 4);
  files.write(3, rows);
  files.claim({{"run", 1}});
  REQUIRE(files.has(3));
  const auto back = files.read(3);
  CHECK(back.ids.equal(rows.ids));
  CHECK(back.log_probs.equal(rows.log_probs));
  CHECK(back.rest.equal(rows.rest));
  CHECK_THROWS_WITH(TeacherFiles(folder.path(), 7, 5).read(3), Contains("ids"));
  files.claim({{"run", 2}});
  CHECK_FALSE(files.has(3));
  files.remove();
  CHECK_FALSE(fs::exists(folder.path() / "teacher"));
}
