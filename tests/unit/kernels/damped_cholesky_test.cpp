// SPDX-License-Identifier: Apache-2.0
#include "kernels/damped_cholesky.h"

#include <catch2/catch.hpp>
#include <limits>

#include "core/error.h"

namespace fettle::kernels {

TEST_CASE("a positive definite matrix is damped by no more than was asked") {
  const at::Tensor a = at::diag(at::tensor({3.0, 8.0, 15.0}));
  double damping = 1;
  const at::Tensor factor = damped_cholesky(a, damping);
  CHECK(damping == 1);
  CHECK(at::allclose(factor, at::diag(at::tensor({2.0, 3.0, 4.0}))));
}

TEST_CASE("damping grows tenfold until the matrix is positive definite") {
  const at::Tensor a = at::diag(at::tensor({-5.0, 1.0}));
  double damping = 0.1;
  const at::Tensor factor = damped_cholesky(a, damping);
  CHECK(damping == Approx(10));
  CHECK(at::allclose(at::mm(factor, factor.t()), a + 10 * at::eye(2)));
}

TEST_CASE("a matrix of fp32 is factored in fp64 and left as it was") {
  const at::Tensor a = at::eye(4);
  double damping = 1;
  CHECK(damped_cholesky(a, damping).scalar_type() == at::kDouble);
  CHECK(at::equal(a, at::eye(4)));
}

TEST_CASE("damped_cholesky refuses what has no factor") {
  double damping = 1;
  at::Tensor bad = at::eye(3);
  bad[1][1] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(damped_cholesky(bad, damping), InternalError);
  bad[1][1] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(damped_cholesky(bad, damping), InternalError);
  CHECK_THROWS_AS(damped_cholesky(at::ones({2, 3}), damping), InternalError);
  double none = 0;
  CHECK_THROWS_AS(damped_cholesky(at::eye(2), none), InternalError);
}

}  // namespace fettle::kernels
