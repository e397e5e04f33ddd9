#pragma once
// Random numbers of estimates: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3,
// SC 2011), a function of (key, counter) without state. The bit of an entry depends on
//   key = seed, counter = (entry / 128, stream, window, probe), bit entry mod 128
// and on nothing else: any machine, order, split or number of directions at once gives the same probe.
#include <array>
#include <cstdint>
#include <span>

namespace hesper {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// Which random numbers: those of one probe of one window.
struct ProbeKey {
  uint64_t seed = 0;
  uint32_t stream = 0;  // what the entries number: a parameter's weights, or one of the streams below
  uint32_t window = 0;  // among all available (Windows::index)
  uint32_t probe = 0;
};

/// Streams that are no parameter's number.
inline constexpr uint32_t token_stream = 0xffff0000u;  // entry = token
inline constexpr uint32_t word_stream = 0xffff0001u;   // entry = token V' + word, V' = V rounded up to 128
inline constexpr uint32_t label_stream = 0xffff0002u;  // entry = token: 128 bits each, uniform()

/// Probes from here on are a pilot's: a choice made with them leaves the estimate unbiased.
inline constexpr uint32_t pilot_probes = 0x80000000u;
/// And from here on starts of a deflation's basis, which all windows of a run share.
inline constexpr uint32_t basis_probes = 0xc0000000u;

/// Bits of entries [128 block, 128 (block + 1)), lowest first.
inline constexpr int64_t bits_of_block = 128;
std::array<uint32_t, 4> random_block(const ProbeKey& key, int64_t block);

/// +-1 with equal chance, independent, for entries [begin, begin + out.size()).
void fill_signs(const ProbeKey& key, int64_t begin, std::span<double> out);
void fill_signs(const ProbeKey& key, int64_t begin, std::span<float> out);

/// In [0, 1), 53 bits, for one entry.
double uniform(const ProbeKey& key, int64_t entry);

}  // namespace hesper
