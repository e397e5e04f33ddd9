#pragma once
// The plan of a run, made before anything is allocated: which pass, how many directions at once, what is made twice to
// fit, and the forecast of memory and work.
#include <cstdint>
#include <optional>
#include <string>

#include "model/model.h"
#include "run/forecast.h"
#include "text/windows.h"

namespace hesper {

std::string to_string(Pass pass);

/// How the engine of any run works.
struct EngineOptions {
  at::Device device = at::kCPU;
  std::vector<at::Device> others{};       // the blocks are dealt to `device` and these, in order
  bool absent = false;                    // they are not on this machine: a plan for Hopper GPUs
  at::ScalarType precision = at::kFloat;  // tangents
  Products products = Products::full;     // how fp32 tangents are multiplied; the others on a GPU only
  std::optional<double> accepted_error;   // precision and products stand for it until it is tried (precision_choice.h)
  std::optional<at::ScalarType> primal;   // unset: as Plan chooses
  int64_t directions = 0;                 // K; 0: as Plan chooses
  int64_t batch = 1;                      // windows of a primal pass (--model-input-bs)
  int64_t memory_limit = 0;               // bytes; 0: what is free
  int64_t beside = 0;                     // bytes that the caller keeps while the run lasts (on a GPU: there)
  bool measure_precision = true;

  std::vector<at::Device> devices() const {
    std::vector<at::Device> all = others;
    all.insert(all.begin(), device);
    return all;
  }
  std::string device_names() const;  // "cuda:0,cuda:1"
};

struct PlanRequest : RunShapes {
  int64_t counted = 0;                    // tokens of all windows that carry loss; 0: all that have a next one
  int64_t batch = 1;                      // B: windows of one primal pass
  Products products = Products::full;     // of fp32 tangents
  at::ScalarType precision = at::kFloat;  // tangents
  std::optional<at::ScalarType> primal;   // unset: fp64 where its forecast is under a quarter of the tangents' time
  std::optional<Pass> pass;               // unset: the planner chooses
  int64_t directions = 0;                 // K; 0: the planner chooses
  int64_t memory_limit = 0;               // bytes
  bool measure_precision = true;          // a few columns of one window are repeated in fp64 at the end
  int64_t columns = 0;  // directions of a window in the whole run (probes, steps); 0: one a selected weight
};

struct Plan : RunForm {           // directions: all n for the Gram pass
  Memory memory;                  // of several devices the fullest one's
  std::vector<Memory> by_device;  // each one's, in order
  RunForm check_form;             // of the fp64 repeat of a few columns, after the rest has gone
  Memory check;                   // its memory; zero when it is left out
  int64_t writing = 0;            // the matrices, one of them as a file and its spectrum: after all that; CPU alone
  bool measure_precision = false;
  int64_t peak() const { return std::max({memory.total(), check.total(), writing}); }
  int64_t limit = 0;                           // bytes allowed
  int64_t units = 0;                           // (batch of windows, chunk of directions)
  double primal_flops = 0, tangent_flops = 0;  // of the whole run
};

/// What a run asks for before it says what it is; both references outlive the request.
PlanRequest plan_request(const Program& program, const Model& model, const Selection& selection, const Windows& windows,
                         const EngineOptions& options);

/// Columns at a time in the fp64 repeat: it is short, and K columns keep K tangents of every block in fp64.
inline constexpr int64_t check_directions = 2;
/// Columns of one window that are repeated in fp64 for the precision error: max(4, n/16), at most n.
int64_t precision_columns(int64_t n);

/// Settles how the form keeps weights, tape and tangents: sets streamed, spilled and (where it was not set before)
/// recompute to what costs least and fits `limit`. Empty: nothing does.
std::optional<Memory> fit_form(const RunShapes& shapes, RunForm& form, int64_t limit);

/// Throws std::runtime_error with both numbers when the smallest plan does not fit, std::invalid_argument for a request
/// that contradicts itself (Gram pass with fewer directions than weights).
Plan make_plan(const PlanRequest& request);

}  // namespace hesper
