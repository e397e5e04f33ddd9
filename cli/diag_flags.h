#pragma once
// The flags of an estimated diagonal, which its run and its plan share.
#include "flags.h"
#include "run/diag.h"

namespace hesper::cli {

struct DiagFlags : Flags {
  std::optional<int64_t> probes;
  std::optional<double> rel_error;
  std::string of = "diagonal", target = "windows", method = "hutchinson", probe_scope = "layer";
  int64_t group_size = 128;
  bool exact = false;
  std::string export_as;  // "", "imatrix"
};

/// --probes, --rel-error, --of, --target, --method, --probe-scope, --exact.
void add_estimate(CLI::App& app, DiagFlags& flags);
/// Throws std::invalid_argument for flags that contradict each other.
DiagOptions diag_options(const DiagFlags& flags);

}  // namespace hesper::cli
