#include <algorithm>
#include <string>

#include "model/data.h"
#include "model/error.h"

namespace lanewise::model {
namespace {

constexpr int32_t kIgnored = -1;

// A bijection of 64-bit integers that mixes well (the finalizer of SplitMix64).
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// The place of `index` in a permutation of [0, count) that the key chooses: a Feistel network over
// the next power of four, repeated until it lands inside. Needs no memory, and any index at any
// time.
uint64_t Permute(uint64_t index, uint64_t count, uint64_t key) {
  if (count < 2) return index;
  unsigned half_bits = 1;
  while (half_bits < 32 && (uint64_t{1} << (2 * half_bits)) < count) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  do {
    uint64_t left = index >> half_bits;
    uint64_t right = index & mask;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t next = left ^ (Mix(key ^ Mix(right + (round << 56))) & mask);
      left = right;
      right = next;
    }
    index = (left << half_bits) | right;
  } while (index >= count);
  return index;
}

// Windows of the part of the text that a row reads when it goes on from window to window.
uint64_t WindowsInRow(uint64_t targets, uint64_t rows, uint64_t window) {
  const uint64_t part = (targets + rows - 1) / rows;
  return (part + window - 1) / window;
}

}  // namespace

BatchSource::BatchSource(const TokenArray& tokens, const Options& options)
    : tokens_(tokens), options_(options) {
  if (options.rows == 0 || options.ctx == 0) {
    throw UsageError("batch and context must be at least 1");
  }
  if (tokens.size() < 2) {
    throw InputError("the text has " + std::to_string(tokens.size()) +
                     " tokens; at least 2 are needed, one to read and one to predict");
  }
  const uint64_t targets = tokens.size() - 1;
  if (targets < options.ctx) {
    options_.ctx = static_cast<size_t>(targets);
    notice_ = "the text is shorter than one window (" + std::to_string(tokens.size()) +
              " tokens): windows of " + std::to_string(targets) + " instead of " +
              std::to_string(options.ctx) + " tokens are used";
  }
}

// How far the windows of an epoch begin before the text's first target; their first and last ones
// are the shorter for it.
uint64_t BatchSource::OffsetOf(uint64_t epoch) const {
  const uint64_t range = options_.sequential ? tokens_.size() - 1 : options_.ctx;
  return Mix(options_.seed ^ Mix(epoch ^ 0x6F66667365740000u)) % range;
}

uint64_t BatchSource::WindowsInEpoch(uint64_t epoch) const {
  const uint64_t targets = tokens_.size() - 1;
  const uint64_t window = options_.ctx;
  if (options_.sequential) return WindowsInRow(targets, options_.rows, window);
  return (targets + OffsetOf(epoch) + window - 1) / window;
}

double BatchSource::BatchesPerEpoch(uint64_t tokens, const Options& options) {
  const uint64_t targets = std::max<uint64_t>(tokens, 2) - 1;
  const uint64_t window = std::min<uint64_t>(options.ctx, targets);
  if (options.sequential) return static_cast<double>(WindowsInRow(targets, options.rows, window));
  // Over all offsets: the sum of ceil((targets + offset) / window) is targets + window - 1.
  return static_cast<double>(targets + window - 1) / static_cast<double>(window) /
         static_cast<double>(options.rows);
}

BatchInfo BatchSource::Next(std::span<int32_t> inputs, std::span<int32_t> targets) {
  if (inputs.size() != rows() * ctx() || targets.size() != rows() * ctx()) {
    throw std::invalid_argument("batch buffers must hold rows x ctx tokens");
  }
  BatchInfo info;
  options_.sequential ? NextSequential(inputs, targets, &info)
                      : NextShuffled(inputs, targets, &info);
  return info;
}

void BatchSource::NextShuffled(std::span<int32_t> inputs, std::span<int32_t> targets,
                               BatchInfo* info) {
  const uint64_t count = tokens_.size() - 1;
  const uint64_t window = options_.ctx;
  std::fill(inputs.begin(), inputs.end(), 0);
  std::fill(targets.begin(), targets.end(), kIgnored);
  for (size_t row = 0; row < options_.rows; ++row) {
    if (position_.index >= WindowsInEpoch(position_.epoch)) position_ = {position_.epoch + 1, 0};
    const uint64_t key = Mix(options_.seed ^ Mix(position_.epoch));
    const uint64_t place = Permute(position_.index, WindowsInEpoch(position_.epoch), key);
    const uint64_t offset = OffsetOf(position_.epoch);
    // Targets [begin, end) of the text, counted from its second token.
    const uint64_t begin = place * window < offset ? 0 : place * window - offset;
    const uint64_t end = std::min((place + 1) * window - offset, count);
    const auto length = static_cast<size_t>(end - begin);
    tokens_.Copy(begin, inputs.subspan(row * options_.ctx, length));
    tokens_.Copy(begin + 1, targets.subspan(row * options_.ctx, length));
    info->targets += length;
    ++position_.index;
  }
}

void BatchSource::NextSequential(std::span<int32_t> inputs, std::span<int32_t> targets,
                                 BatchInfo* info) {
  if (position_.index >= WindowsInEpoch(position_.epoch)) position_ = {position_.epoch + 1, 0};
  const uint64_t count = tokens_.size() - 1;
  const uint64_t part = (count + options_.rows - 1) / options_.rows;
  const uint64_t offset = OffsetOf(position_.epoch);
  info->reset_state = position_.index == 0;
  for (size_t row = 0; row < options_.rows; ++row) {
    const uint64_t row_end = std::min<uint64_t>((row + 1) * part, count);
    for (size_t t = 0; t < options_.ctx; ++t) {
      const uint64_t place = row * part + position_.index * options_.ctx + t;
      const bool inside = place < row_end;
      // The parts go round the end of the text, so that each epoch cuts it elsewhere.
      const uint64_t at = (place + offset) % count;
      inputs[row * options_.ctx + t] = inside ? tokens_[at] : 0;
      targets[row * options_.ctx + t] = inside ? tokens_[at + 1] : kIgnored;
      info->targets += inside ? 1 : 0;
    }
  }
  ++position_.index;
}

void BatchSource::set_position(const DataPosition& position) {
  if (position.index > WindowsInEpoch(position.epoch)) {
    throw InputError("the data position (epoch " + std::to_string(position.epoch) + ", window " +
                     std::to_string(position.index) + ") is beyond the data's " +
                     std::to_string(WindowsInEpoch(position.epoch)) + " windows");
  }
  position_ = position;
}

}  // namespace lanewise::model
