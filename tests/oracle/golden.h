// Reads a golden folder made by tests/golden/make_goldens.py (which says what is in it).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "oracle/twin.h"

namespace hesper::oracle {

struct GoldenSelection {
  std::string name;
  std::vector<std::pair<std::string, std::vector<int64_t>>> entries;  // Hugging Face name, flat indices
  at::Tensor gradient;                                                // (n) float64
  at::Tensor hessian;                                                 // (n, n) float64
  at::Tensor gauss_newton;                                            // (n, n) float64
};

struct Golden {
  std::string folder;
  nlohmann::json config;
  Weights<double> weights;
  at::Tensor ids;            // (b, T) int64
  at::Tensor labels;         // (b, T) int64, -100: not counted; ids where the folder has none
  double loss = 0;           // mean of window_losses
  at::Tensor window_losses;  // (b) float64
  at::Tensor logits;         // (T, V) float64, of window 0
  std::vector<GoldenSelection> selections;
};

// Names of the golden folders below tests/golden.
std::vector<std::string> golden_names();
Golden read_golden(const std::string& name);

std::vector<std::vector<int64_t>> rows_of(const at::Tensor& ids);  // (b, T) int64 -> b of T

// |a - b|_F / |b|_F, b the reference
double relative_error(const at::Tensor& a, const at::Tensor& b);

}  // namespace hesper::oracle
