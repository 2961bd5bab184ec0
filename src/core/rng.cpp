// SPDX-License-Identifier: Apache-2.0
#include "core/rng.h"

#include <cmath>
#include <numbers>

#include "core/error.h"

namespace fettle {
namespace {

// Every product that is added to something goes through std::fma: its result
// is defined to the bit, while a compiler may or may not fuse a*b + c.

// c[0] + c[1] x + c[2] x^2 + …
template <std::size_t N>
double polynomial(const std::array<double, N>& c, double x) {
  double value = c[N - 1];
  for (std::size_t i = N - 1; i-- > 0;) value = std::fma(value, x, c[i]);
  return value;
}

// Natural logarithm of x > 0, the same on every platform (the C library's is
// not). With x = m 2^e and m near 1: log m = 2 atanh(f), f = (m-1)/(m+1). The
// series' first dropped term is below 1e-18 of the result.
double portable_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.5 * std::numbers::sqrt2) {
    m = std::ldexp(m, 1);
    --exponent;
  }
  const double f = (m - 1) / (m + 1);
  const double square = f * f;
  double series = 0;
  for (int k = 23; k >= 1; k -= 2) {
    series = std::fma(series, square, 1.0 / k);
  }
  return std::fma(
      static_cast<double>(exponent), std::numbers::ln2, 2 * (f * series));
}

// The rational approximations of AS 241 (PPND16), by rising power.
constexpr std::array kCentreTop{
    3.3871328727963666080e0,
    1.3314166789178437745e2,
    1.9715909503065514427e3,
    1.3731693765509461125e4,
    4.5921953931549871457e4,
    6.7265770927008700853e4,
    3.3430575583588128105e4,
    2.5090809287301226727e3};
constexpr std::array kCentreBottom{
    1.0,
    4.2313330701600911252e1,
    6.8718700749205790830e2,
    5.3941960214247511077e3,
    2.1213794301586595867e4,
    3.9307895800092710610e4,
    2.8729085735721942674e4,
    5.2264952788528545610e3};
constexpr std::array kMiddleTop{
    1.42343711074968357734e0,
    4.63033784615654529590e0,
    5.76949722146069140550e0,
    3.64784832476320460504e0,
    1.27045825245236838258e0,
    2.41780725177450611770e-1,
    2.27238449892691845833e-2,
    7.74545014278341407640e-4};
constexpr std::array kMiddleBottom{
    1.0,
    2.05319162663775882187e0,
    1.67638483018380384940e0,
    6.89767334985100004550e-1,
    1.48103976427480074590e-1,
    1.51986665636164571966e-2,
    5.47593808499534494600e-4,
    1.05075007164441684324e-9};
constexpr std::array kTailTop{
    6.65790464350110377720e0,
    5.46378491116411436990e0,
    1.78482653991729133580e0,
    2.96560571828504891230e-1,
    2.65321895265761230930e-2,
    1.24266094738807843860e-3,
    2.71155556874348757815e-5,
    2.01033439929228813265e-7};
constexpr std::array kTailBottom{
    1.0,
    5.99832206555887937690e-1,
    1.36929880922735805310e-1,
    1.48753612908506148525e-2,
    7.86869131145613259100e-4,
    1.84631831751005468180e-5,
    1.42151175831644588870e-7,
    2.04426310338993978564e-15};

// Algorithm AS 241 (PPND16): x with P(X < x) = p, for 0 < p < 1.
double inverse_normal(double p) {
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = std::fma(-q, q, 0.180625);
    return q * polynomial(kCentreTop, r) / polynomial(kCentreBottom, r);
  }
  const double r = std::sqrt(-portable_log(q < 0 ? p : 1 - p));
  const double x =
      r <= 5
          ? polynomial(kMiddleTop, r - 1.6) / polynomial(kMiddleBottom, r - 1.6)
          : polynomial(kTailTop, r - 5) / polynomial(kTailBottom, r - 5);
  return q < 0 ? -x : x;
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(
    std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  constexpr int rounds = 10;
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0],
        static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1],
        static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

Rng::Rng(std::uint64_t seed, std::uint64_t stream)
    : Rng(State{seed, stream, 0}) {}

Rng::Rng(const State& state) : state_(state) {
  if (state_.position % 2 == 1) fill_block();
}

void Rng::fill_block() {
  const std::uint64_t block = state_.position / 2;
  const auto low = [](std::uint64_t x) {
    return static_cast<std::uint32_t>(x);
  };
  const auto high = [](std::uint64_t x) {
    return static_cast<std::uint32_t>(x >> 32);
  };
  const auto words = philox4x32(
      {low(block), high(block), low(state_.stream), high(state_.stream)},
      {low(state_.seed), high(state_.seed)});
  for (std::size_t i = 0; i < block_.size(); ++i) {
    block_[i] = words[2 * i] | std::uint64_t{words[2 * i + 1]} << 32;
  }
}

std::uint64_t Rng::next() {
  if (state_.position % 2 == 0) fill_block();
  return block_[state_.position++ % 2];
}

double Rng::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

std::uint64_t Rng::below(std::uint64_t limit) {
  FETTLE_ASSERT(limit > 0);
  // 2^64 mod limit: words below it would make the small remainders likelier.
  const std::uint64_t excess = (0 - limit) % limit;
  std::uint64_t word = next();
  while (word < excess) word = next();
  return word % limit;
}

double Rng::normal() {
  // The middle of one of 2^52 equal intervals: exact, and never 0 or 1.
  return inverse_normal((static_cast<double>(next() >> 12) + 0.5) * 0x1p-52);
}

}  // namespace fettle
