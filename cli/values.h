#pragma once
// Values of flags, and how numbers are said. Everything throws std::invalid_argument naming the flag.
#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>

#include "hessian/selection_request.h"
#include "run/plan.h"
#include "run/run_control.h"

namespace hesper::cli {

int64_t parse_memory(const std::string& flag, const std::string& text);  // "16GiB", "500MB", "1.5G", bytes -> bytes
double parse_seconds(const std::string& flag, const std::string& text);  // "90", "30s", "5m", "1.5h" -> seconds
Part parse_part(const std::string& flag, const std::string& text);       // "2/4"; nothing: the whole
/// "cpu", "cuda", "cuda:1"; checked to exist, unless it may be absent.
at::Device parse_device(const std::string& text, bool absent = false);
/// "cuda:0,cuda:1": several GPUs that share a model's blocks; one device as above.
std::vector<at::Device> parse_devices(const std::string& text, bool absent = false);
at::ScalarType parse_precision(const std::string& flag, const std::string& text);  // fp64 or fp32
/// Of tangents on options.device: fp64, fp32, on a GPU also bf16x3, tf32, bf16; or an error, "1e-3".
void set_tangent_precision(EngineOptions& options, const std::string& flag, const std::string& text);
/// The precision of tangents is to be the cheapest within `error`; until it is tried, the one that usually is.
void accept_error(EngineOptions& options, double error);
IndexRange parse_range(const std::string& flag, const std::string& text);  // "a:b"
at::Tensor read_indices(const std::string& path);  // .pt, .npy or text (blanks, commas, lines) -> (m) int64

std::string say_bytes(int64_t bytes);       // "812 MiB"
std::string say_seconds(double seconds);    // "0.31 s", "41 s", "12 min 05 s", "3 h 20 min"
std::string say_flops(double flops);        // "1.55 TFLOP"
std::string one_line(std::string message);  // the first line, blanks trimmed

}  // namespace hesper::cli
