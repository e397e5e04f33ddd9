#pragma once
// A program run to its end, its output and the peak of its anonymous memory.
#include <cstdint>
#include <string>
#include <vector>

namespace hesper::bench {

struct Finished {
  std::string output;      // standard output
  int64_t peak_bytes = 0;  // anonymous resident memory, sampled every few milliseconds
};

/// argv[0]: a path. Standard error passes through. std::runtime_error where it cannot start or does not exit with 0.
Finished run_process(const std::vector<std::string>& argv);

}  // namespace hesper::bench
