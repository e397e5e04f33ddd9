#pragma once
#include <cstdint>
#include <string>

namespace hesper {

// Damaged copies of a file's bytes, the same ones in every run.
class Mutations {
 public:
  // `good` with `changes` of its bytes replaced by any of 0 .. largest (255, or 127 to stay within ASCII).
  std::string of(std::string good, int changes, int largest = 255) {
    for (int i = 0; i < changes; ++i) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      good[(state_ >> 33) % good.size()] = static_cast<char>(state_ >> 56 & static_cast<uint64_t>(largest));
    }
    return good;
  }

 private:
  uint64_t state_ = 1;
};

}  // namespace hesper
