#include "values.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cinttypes>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "files/read_file.h"
#include "processes.h"
#include "refuse.h"
#include "report/compare.h"
#include "run/device_memory.h"
#include "run/precision_choice.h"

namespace hesper::cli {
namespace {

// The whole of `text` as a number.
template <typename T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Unit {
  const char* name;
  double bytes;
};

}  // namespace

int64_t parse_memory(const std::string& flag, const std::string& text) {
  constexpr std::array<Unit, 13> units = {{{"", 1},
                                           {"B", 1},
                                           {"K", 0x1p10},
                                           {"KiB", 0x1p10},
                                           {"KB", 1e3},
                                           {"M", 0x1p20},
                                           {"MiB", 0x1p20},
                                           {"MB", 1e6},
                                           {"G", 0x1p30},
                                           {"GiB", 0x1p30},
                                           {"GB", 1e9},
                                           {"TiB", 0x1p40},
                                           {"TB", 1e12}}};
  const size_t split = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::optional<double> value = number<double>(std::string_view(text).substr(0, split));
  const size_t name = std::min(text.find_first_not_of(' ', split), text.size());
  for (const Unit& unit : units) {
    if (!value || text.substr(name) != unit.name) continue;
    const double bytes = *value * unit.bytes;
    if (bytes >= 1 && bytes < 0x1p62) return static_cast<int64_t>(bytes);
  }
  refuse("{} {}: a size such as 16GiB, 500MB or a number of bytes expected", flag, text);
}

double parse_seconds(const std::string& flag, const std::string& text) {
  const size_t split = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::optional<double> value = number<double>(std::string_view(text).substr(0, split));
  for (const auto& [name, seconds] : {std::pair{"", 1.0}, {"s", 1.0}, {"m", 60.0}, {"h", 3600.0}})
    if (value && text.substr(split) == name) return *value * seconds;
  refuse("{} {}: a time such as 30s, 5m or 1h expected", flag, text);
}

Part parse_part(const std::string& flag, const std::string& text) {
  Part part;
  if (text.empty()) return part;
  int used = 0;
  const bool read = std::sscanf(text.c_str(), "%" SCNd64 "/%" SCNd64 "%n", &part.number, &part.of, &used) == 2;
  if (!read || static_cast<size_t>(used) != text.size() || part.number < 1 || part.number > part.of ||
      part.of > int64_t{1} << 20)
    throw std::invalid_argument(fmt::format("{} {}: i/N expected, such as 2/4", flag, text));
  return part;
}

at::Device parse_device(const std::string& text, bool absent) {
  if (text == "cpu") return at::kCPU;
  const std::optional<int> index = text == "cuda"              ? local_rank()
                                   : text.starts_with("cuda:") ? number<int>(std::string_view(text).substr(5))
                                                               : std::nullopt;
  if (!index || *index < 0) refuse("--device {}: cpu, cuda or cuda:0, cuda:1, .. expected", text);
  const std::optional<int> count = gpu_count();
  if (!count && !absent) refuse("--device {}: this build has no CUDA (`make cuda` builds one that has)", text);
  if (!absent && *index >= *count)
    refuse("--device {}: {} CUDA devices are there", text, *count == 0 ? "no" : std::to_string(*count));
  if (*index > std::numeric_limits<c10::DeviceIndex>::max()) refuse("--device {}: no host has so many", text);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(*index)};
}

std::vector<at::Device> parse_devices(const std::string& text, bool absent) {
  std::vector<at::Device> devices;
  std::stringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    const at::Device device = parse_device(word, absent);
    const bool again = std::find(devices.begin(), devices.end(), device) != devices.end();
    if (again || (device.is_cpu() && text != word))
      refuse("--device {}: different GPUs expected, such as cuda:0,cuda:1", text);
    devices.push_back(device);
  }
  if (devices.empty()) refuse("--device: cpu, cuda or cuda:0, cuda:1, .. expected");
  return devices;
}

at::ScalarType parse_precision(const std::string& flag, const std::string& text) {
  if (text == "fp64") return at::kDouble;
  if (text == "fp32") return at::kFloat;
  refuse("{} {}: fp64 or fp32 expected", flag, text);
}

void accept_error(EngineOptions& options, double error) {
  const TangentPrecision precision = typical_precision(error, options.device);
  options.accepted_error = error;
  options.precision = precision.working;
  options.products = precision.products;
}

void set_tangent_precision(EngineOptions& options, const std::string& flag, const std::string& text) {
  for (const Products products : {Products::bf16x3, Products::tf32, Products::bf16}) {
    if (text != to_string(products)) continue;
    if (options.device.is_cpu()) refuse("{} {}: on a GPU only (--device cuda); a CPU has fp64 and fp32", flag, text);
    options.products = products;
    return;
  }
  if (const auto error = number<double>(text); error && *error > 0 && *error < 1) return accept_error(options, *error);
  if (text != "fp64" && text != "fp32")
    refuse("{} {}: fp64, fp32, bf16x3, tf32, bf16, auto or an error between 0 and 1 expected", flag, text);
  options.precision = parse_precision(flag, text);
}

IndexRange parse_range(const std::string& flag, const std::string& text) {
  const size_t colon = std::min(text.find(':'), text.size());
  const auto begin = number<int64_t>(std::string_view(text).substr(0, colon));
  const auto end = colon < text.size() ? number<int64_t>(std::string_view(text).substr(colon + 1)) : std::nullopt;
  if (!begin || !end) refuse("{} {}: a range A:B expected (A included, B not)", flag, text);
  return {*begin, *end};
}

at::Tensor read_indices(const std::string& path) {
  if (path.ends_with(".pt") || path.ends_with(".npy")) {
    const at::Tensor indices = read_matrix(path);
    if (indices.scalar_type() != at::kInt && indices.scalar_type() != at::kLong) {
      refuse("--indices {}: whole numbers expected, not {}", path, c10::toString(indices.scalar_type()));
    }
    return indices.to(at::kLong).flatten();
  }
  const std::string text = read_file(path);
  constexpr const char* separators = " \t\r\n,";
  std::vector<int64_t> indices;
  for (size_t at = text.find_first_not_of(separators); at < text.size();) {
    const size_t end = std::min(text.find_first_of(separators, at), text.size());
    const auto index = number<int64_t>(std::string_view(text).substr(at, end - at));
    if (!index) refuse("--indices {}: entry {} is not a whole number", path, indices.size());
    indices.push_back(*index);
    at = text.find_first_not_of(separators, end);
  }
  return at::tensor(indices, at::kLong);
}

std::string say_bytes(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value < 0x1p10) return fmt::format("{} B", bytes);
  if (value < 0x1p20) return fmt::format("{:.3g} KiB", value / 0x1p10);
  if (value < 1000 * 0x1p20) return fmt::format("{:.3g} MiB", value / 0x1p20);
  return value < 1000 * 0x1p30 ? fmt::format("{:.3g} GiB", value / 0x1p30) : fmt::format("{:.3g} TiB", value / 0x1p40);
}

std::string say_seconds(double seconds) {
  if (seconds < 10) return fmt::format("{:.2g} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 1e15)));
  if (whole < 120) return fmt::format("{} s", whole);
  if (whole < 7200) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

std::string say_flops(double flops) {
  if (flops < 1e12) return fmt::format("{:.3g} GFLOP", flops / 1e9);
  return flops < 1e15 ? fmt::format("{:.3g} TFLOP", flops / 1e12) : fmt::format("{:.3g} PFLOP", flops / 1e15);
}

std::string one_line(std::string message) {
  message.resize(std::min(message.find('\n'), message.size()));
  while (!message.empty() && (message.back() == ' ' || message.back() == '\r')) message.pop_back();
  return message;
}

}  // namespace hesper::cli
