#pragma once
// One layer to estimate the diagonal of: its tape, and the exact diagonal at some of its rows.
#include <filesystem>
#include <memory>
#include <string>

#include "hessian/selection_request.h"
#include "model/model.h"
#include "ops/parameters.h"
#include "primal/primal.h"
#include "run/diag.h"
#include "text/windows.h"

namespace hesper::bench {

/// What is measured: a layer, and at how many evenly spaced rows its truth is known (0: at all).
struct Case {
  std::string model;  // folder
  std::string layer;
  int64_t block = 0, truth_rows = 0;
  std::string name() const;
};

struct Stand {
  Case what;
  std::shared_ptr<const Model> model;
  Windows windows;  // one of T tokens
  Program program;
  Parameters parameters;
  ResolvedSelection layer, rows;  // all of the layer; the rows of the truth
  Tape tape;
  double primal_seconds = 0;
  at::Tensor truth;  // (rows x columns) fp64: exact diagonal at `rows`
  std::string key;   // of everything that the truth depends on

  const std::vector<int64_t>& shape() const { return layer.tensors[0].shape; }
};

/// The truth is computed, or read from `cache` where it was before. `text`: a file whose first `tokens` tokens are the
/// window.
Stand make_stand(const Case& what, std::shared_ptr<const Model> model, const std::string& text, int64_t tokens,
                 const std::filesystem::path& cache);

/// What a run of hesper diag on this layer has for options; nothing is repeated in fp64.
DiagOptions run_options();

/// Floating-point operations of a pass for one of `directions` at once.
double pass_flops(const Stand& stand, Pass pass, int64_t directions);

}  // namespace hesper::bench
