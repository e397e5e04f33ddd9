#include "checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <stdexcept>

#include "checkpoint/header_bytes.h"
#include "files/read_file.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using Named = std::vector<std::pair<std::string, at::Tensor>>;

Named every_dtype() {
  const at::Tensor values = at::arange(-3, 4, at::kDouble);
  Named tensors;
  for (const auto dtype : {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kBFloat16, at::kHalf,
                           at::kFloat, at::kDouble}) {
    tensors.emplace_back(fmt::format("t.{}", c10::toString(dtype)), values.abs().to(dtype));
  }
  tensors.emplace_back("scalar", at::scalar_tensor(2.5, at::kFloat));
  tensors.emplace_back("empty", at::empty({0, 3}, at::kDouble));
  tensors.emplace_back("transposed", at::arange(6, at::kFloat).view({2, 3}).t());
  return tensors;
}

TEST(Safetensors, round_trips_every_dtype) {
  const TemporaryFolder folder;
  const std::string path = folder / "all.safetensors";
  write_safetensors(path, every_dtype(), {{"format", "pt"}, {"note", "é\n"}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.tensors().size(), every_dtype().size());
  EXPECT_EQ(file.metadata().at("note"), "é\n");
  for (const auto& [name, tensor] : every_dtype()) {
    const at::Tensor stored = file.view(name);
    EXPECT_EQ(stored.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(stored.sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(at::equal(stored, tensor)) << name;
  }
  EXPECT_FALSE(file.has("other"));
  EXPECT_EQ(error_of<std::runtime_error>([&] { file.view("other"); }), path + ": no tensor \"other\"");
}

TEST(Safetensors, views_are_mapped_and_keep_the_file_alive) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  write_safetensors(path, {{"a", at::arange(1000, at::kFloat)}});
  at::Tensor view;
  {
    const SafetensorsFile file(path);
    view = file.view("a");
    const auto* begin = reinterpret_cast<const std::byte*>(view.const_data_ptr());
    EXPECT_GE(begin, file.bytes().data());
    EXPECT_LT(begin, file.bytes().data() + file.bytes().size());
  }
  std::filesystem::remove(path);
  EXPECT_EQ(view.sum().item<float>(), 499500.0F);
}

TEST(Safetensors, copies_what_is_not_aligned) {
  const TemporaryFolder folder;
  std::string header = R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                       R"("a":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}})";
  while (header.size() % 8 != 0) header += ' ';
  const double value = 0.1;
  std::string data = "x";
  data.append(reinterpret_cast<const char*>(&value), sizeof value);
  const SafetensorsFile file(folder.write("a.safetensors", safetensors_bytes(header, data)));
  EXPECT_EQ(file.view("a").item<double>(), value);
}

TEST(Safetensors, refuses_what_it_cannot_map) {
  const TemporaryFolder folder;
  const std::string missing = folder / "missing";
  EXPECT_EQ(error_of<std::runtime_error>([&] { SafetensorsFile{missing}; }),
            missing + ": cannot open: No such file or directory");
  const std::string itself = folder.path;
  EXPECT_EQ(error_of<std::runtime_error>([&] { SafetensorsFile{itself}; }), itself + ": not a regular file");
  const std::string empty = folder.write("empty", "");
  EXPECT_EQ(error_of<std::runtime_error>([&] { SafetensorsFile{empty}; }),
            empty + ": 0 bytes, a safetensors file has at least 8");
}

TEST(Safetensors, writer_refuses_what_the_format_lacks) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  const at::Tensor x = at::ones({2});
  EXPECT_THROW(write_safetensors(path, {{"a", x}, {"a", x}}), std::invalid_argument);
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", x}}), std::invalid_argument);
  EXPECT_THROW(write_safetensors(path, {{"a", at::ones({2}, at::kComplexFloat)}}), std::invalid_argument);
  EXPECT_THROW(write_safetensors(path, {{"a", at::Tensor()}}), std::invalid_argument);
  EXPECT_THROW(write_safetensors(path, {{"\xff", x}}), std::invalid_argument);
  EXPECT_THROW(write_safetensors("/proc/a.safetensors", {{"a", x}}), std::runtime_error);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path));
}

TEST(Safetensors, writer_orders_by_width_then_name) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  write_safetensors(path, {{"a", at::ones({3}, at::kByte)}, {"c", at::ones({1})}, {"b", at::ones({2})}});
  const SafetensorsFile file(path);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "b");
  EXPECT_EQ(file.tensors()[1].name, "c");
  EXPECT_EQ(file.tensors()[2].name, "a");
  EXPECT_EQ(file.tensors()[0].begin % 8, 0u);
}

// The reader everybody has: the Python package, where the environment of the wheel holds it.
TEST(Safetensors, python_package_reads_what_we_write_and_the_reverse) {
  const std::string python = HESPER_PYTHON;
  if (std::system((python + " -c 'import safetensors, numpy' >/dev/null 2>&1").c_str()) != 0) {
    GTEST_SKIP() << "no Python with safetensors and numpy: " << python;
  }
  const TemporaryFolder folder;
  const std::string ours = folder / "ours.safetensors";
  const std::string theirs = folder / "theirs.safetensors";
  Named tensors = every_dtype();
  std::erase_if(tensors, [](const auto& entry) { return entry.second.scalar_type() == at::kBFloat16; });  // no numpy
  write_safetensors(ours, tensors, {{"note", "x"}});
  const std::string script = folder.write("copy.py",
                                          "import sys\n"
                                          "from safetensors import safe_open\n"
                                          "from safetensors.numpy import save_file\n"
                                          "with safe_open(sys.argv[1], 'np') as f:\n"
                                          "    assert f.metadata() == {'note': 'x'}\n"
                                          "    save_file({k: f.get_tensor(k) for k in f.keys()}, sys.argv[2])\n");
  ASSERT_EQ(std::system(fmt::format("{} {} {} {}", python, script, ours, theirs).c_str()), 0);
  const SafetensorsFile file(theirs);
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(file.view(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(file.view(name), tensor)) << name;
  }
}

}  // namespace
}  // namespace hesper
