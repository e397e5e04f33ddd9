#pragma once
// A run of a small model, and results held against each other.
#include <cmath>

#include "checkpoint/safetensors.h"
#include "report/pt_file.h"
#include "tool.h"

namespace hesper {

namespace fs = std::filesystem;

class Results : public testing::Test {
 protected:
  Results() {
    at::manual_seed(1);
    write_npy(folder / "ids.npy", at::randint(4, 40, {60}, at::kInt));
  }
  Words data(const std::string& out) const {
    return {"--model",     golden_folder("llama-gqa"),
            "--token-ids", "ids.npy",
            "--bos",       "none",
            "--seqlen",    "12",
            "--b",         "5",
            "--precision", "fp64",
            "--out",       out};
  }
  std::vector<std::string> files(const std::string& out, const std::string& extension) const {
    std::vector<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder / out))
      if (entry.path().extension() == extension) found.push_back(fs::relative(entry.path(), folder / out).string());
    std::sort(found.begin(), found.end());
    return found;
  }
  /// Numbers of two records, those of time and memory aside; `path` for the message.
  void expect_near(const nlohmann::json& a, const nlohmann::json& b, const std::string& path) const {
    for (const char* timed : {"seconds", "peak_memory", "command_line", "planned_memory", "memory_limit", "device"})
      if (path.ends_with(timed)) return;
    if (a.is_number_float() && b.is_number_float()) {
      const double x = a, y = b;
      EXPECT_LE(std::abs(x - y), 1e-9 * std::max(std::abs(x), std::abs(y))) << path;
      return;
    }
    ASSERT_EQ(a.type(), b.type()) << path;
    if (!a.is_structured()) {
      EXPECT_EQ(a, b) << path;
      return;
    }
    ASSERT_EQ(a.size(), b.size()) << path;
    for (size_t i = 0; a.is_array() && i < a.size(); ++i) expect_near(a[i], b[i], fmt::format("{}/{}", path, i));
    if (a.is_array()) return;
    for (const auto& [key, value] : a.items()) {
      ASSERT_TRUE(b.contains(key)) << path << key;
      expect_near(value, b[key], fmt::format("{}/{}", path, key));
    }
  }
  /// The same files, their numbers equal to the rounding of fp64 sums in two orders.
  void expect_same(const std::string& one, const std::string& other) const {
    for (const char* extension : {".pt", ".pdf", ".png", ".csv", ".json", ".safetensors", ".snapshot"})
      EXPECT_EQ(files(other, extension), files(one, extension)) << extension;
    for (const std::string& file : files(one, ".json"))
      expect_near(nlohmann::json::parse(read_bytes(folder / one / file)),
                  nlohmann::json::parse(read_bytes(folder / other / file)), file);
    for (const std::string& file : files(one, ".pt")) {
      const at::Tensor a = read_pt(folder / one / file), b = read_pt(folder / other / file);
      EXPECT_LE((a - b).norm().item<double>(), 1e-12 * a.norm().item<double>()) << file;
    }
    for (const std::string& file : files(one, ".safetensors")) {
      const SafetensorsFile a((folder / one / file).string()), b((folder / other / file).string());
      for (const TensorInfo& info : a.tensors())
        EXPECT_TRUE(at::allclose(a.view(info.name), b.view(info.name), 1e-9, 1e-13, true)) << info.name;
    }
  }
  const TemporaryFolder folder;
};

}  // namespace hesper
