// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method_smt.h"

#include "tune/method/sparse_method.h"

namespace fettle::tune {

namespace {

// Experts and attention have budgets of their own.
std::vector<SparseBlocksOptions> smt_parts(const TuneOptions& options) {
  SparseBlocksOptions blocks{
      .name = "blocks",
      .roles = model::kExpertRoles.all(),
      .block = parse_block(options.block, "block"),
      .score = BlockScore::kSignedSum,
      .sparse = sparse_options(options, kSmtMethod.name)};
  std::vector<SparseBlocksOptions> parts{blocks};
  if (options.attention_frac > 0.0) {
    blocks.name = "attention_blocks";
    blocks.roles = model::attention_roles();
    blocks.sparse.frac = options.attention_frac;
    parts.push_back(blocks);
  }
  return parts;
}

std::vector<model::Role> smt_roles(
    const TuneOptions& options, const model::ModelConfig&) {
  std::vector<model::Role> roles;
  for (const auto& part : smt_parts(options)) {
    roles.insert(roles.end(), part.roles.begin(), part.roles.end());
  }
  return roles;
}

Parts smt_make(const PartInput& input) {
  Parts parts;
  for (auto part : smt_parts(input.options)) {
    part.sparse.owners = input.owners;
    parts.push_back(
        std::make_unique<SparseBlocks>(input.reader, input.device, part));
  }
  return parts;
}

PartBytes smt_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    at::Device device) {
  PartBytes sum;
  for (const auto& part : smt_parts(options)) {
    sum += block_bytes(options, config, part, device);
  }
  return sum;
}

}  // namespace

const Method kSmtMethod{
    "smt",
    "the blocks of all matrices with the largest mean gradients",
    smt_roles,
    smt_make,
    smt_bytes};

}  // namespace fettle::tune
