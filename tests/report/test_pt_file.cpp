#include "report/pt_file.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "temporary_folder.h"

namespace hesper {
namespace {

void run_python(const std::filesystem::path& folder, const std::string& code) {
  write_bytes(folder / "script.py", code);
  const std::string command =
      "cd '" + folder.string() + "' && '" + std::string(std::getenv("HESPER_PYTHON")) + "' script.py";
  ASSERT_EQ(std::system(command.c_str()), 0) << code;
}

bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && a.equal(b);
}

const at::ScalarType dtypes[] = {at::kHalf, at::kBFloat16, at::kFloat, at::kDouble, at::kInt, at::kLong};

TEST(PtFile, RoundTripOfEveryDtypeAndShape) {
  TemporaryFolder folder;
  for (const at::ScalarType dtype : dtypes) {
    for (const std::vector<int64_t>& shape :
         std::vector<std::vector<int64_t>>{{}, {1}, {0, 3}, {7}, {5, 5}, {2, 3, 4, 5}}) {
      const at::Tensor x = (at::randn(shape) * 100).to(dtype);
      write_pt(folder / "x.pt", x);
      EXPECT_TRUE(same(read_pt(folder / "x.pt"), x)) << c10::toString(dtype) << " " << x.sizes();
    }
  }
}

TEST(PtFile, AViewIsWrittenWithoutItsStorage) {
  TemporaryFolder folder;
  const at::Tensor large = at::randn({1000, 1000});
  write_pt(folder / "row.pt", large.slice(0, 3, 5));
  write_pt(folder / "column.pt", large.slice(1, 3, 5).t());
  EXPECT_TRUE(same(read_pt(folder / "row.pt"), large.slice(0, 3, 5)));
  EXPECT_TRUE(same(read_pt(folder / "column.pt"), large.slice(1, 3, 5).t()));
  EXPECT_LT(std::filesystem::file_size(folder / "row.pt"), 12000u);
  EXPECT_LT(std::filesystem::file_size(folder / "column.pt"), 12000u);
}

TEST(PtFile, RefusesWhatItCannotWrite) {
  TemporaryFolder folder;
  EXPECT_THROW(write_pt(folder / "x.pt", at::zeros({2}, at::kBool)), std::invalid_argument);
  EXPECT_THROW(write_pt(folder / "x.pt", at::Tensor()), std::invalid_argument);
  EXPECT_FALSE(std::filesystem::exists(folder / "x.pt"));
  EXPECT_NE(error_of<std::runtime_error>([&] { write_pt("/proc/x.pt", at::zeros({2})); }).find("cannot write"),
            std::string::npos);
}

TEST(PtFile, PythonLoadsOursAndWeLoadPythons) {
  if (std::getenv("HESPER_PYTHON") == nullptr) GTEST_SKIP() << "set HESPER_PYTHON to a Python with torch";
  TemporaryFolder folder;
  write_pt(folder / "f32.pt", at::arange(6, at::kFloat).reshape({2, 3}));
  write_pt(folder / "f64.pt", at::arange(6, at::kDouble).reshape({3, 2}) / 3);
  write_pt(folder / "bf16.pt", at::full({4}, 1.5, at::kBFloat16));
  write_pt(folder / "i64.pt", at::arange(4, at::kLong).slice(0, 1, 3));
  run_python(folder.path, R"(
import torch
def load(name): return torch.load(name, weights_only=True)
assert type(load('f32.pt')) is torch.Tensor
assert torch.equal(load('f32.pt'), torch.arange(6, dtype=torch.float32).reshape(2, 3))
assert torch.equal(load('f64.pt'), torch.arange(6, dtype=torch.float64).reshape(3, 2) / 3)
assert torch.equal(load('bf16.pt'), torch.full((4,), 1.5, dtype=torch.bfloat16))
assert torch.equal(load('i64.pt'), torch.tensor([1, 2]))
x = torch.arange(24, dtype=torch.float32).reshape(4, 6)
for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64):
    torch.save(x.to(dtype), 'p_%s.pt' % str(dtype).split('.')[1])
torch.save(x[1:3, ::2].t(), 'view.pt')
torch.save(torch.nn.Parameter(x), 'parameter.pt')
torch.save(x, 'protocol4.pt', pickle_protocol=4)
torch.save(torch.zeros(1 << 20), 'long.pt')
torch.save({'a': x}, 'dict.pt')
torch.save([x], 'list.pt')
torch.save(torch.nn.Linear(2, 2), 'module.pt')
torch.save(x.bool(), 'bool.pt')
torch.save(x[:1].expand(100, 6), 'expanded.pt')
torch.save(x, 'legacy.pt', _use_new_zipfile_serialization=False)
)");
  const at::Tensor x = at::arange(24, at::kFloat).reshape({4, 6});
  const char* names[] = {"float16", "bfloat16", "float32", "float64", "int32", "int64"};
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE(same(read_pt(folder / ("p_" + std::string(names[i]) + ".pt")), x.to(dtypes[i]))) << names[i];
  }
  EXPECT_TRUE(same(read_pt(folder / "view.pt"), x.slice(0, 1, 3).slice(1, 0, 6, 2).t()));
  EXPECT_TRUE(same(read_pt(folder / "parameter.pt"), x));
  EXPECT_TRUE(same(read_pt(folder / "protocol4.pt"), x));
  EXPECT_EQ(read_pt(folder / "long.pt").numel(), 1 << 20);
  const auto refusal = [&](const char* name) { return error_of<std::runtime_error>([&] { read_pt(folder / name); }); };
  EXPECT_NE(refusal("dict.pt").find("holds a dict"), std::string::npos) << refusal("dict.pt");
  EXPECT_NE(refusal("list.pt").find("holds a list"), std::string::npos);
  EXPECT_NE(refusal("module.pt").find("torch.nn.modules.linear.Linear"), std::string::npos) << refusal("module.pt");
  EXPECT_NE(refusal("bool.pt").find("type Bool"), std::string::npos) << refusal("bool.pt");
  EXPECT_NE(refusal("expanded.pt").find("600 elements"), std::string::npos) << refusal("expanded.pt");
  EXPECT_NE(refusal("legacy.pt").find("not a zip archive"), std::string::npos) << refusal("legacy.pt");
}

// Every byte of a small file changed, and every truncation: a clear refusal or a tensor, never a crash or a huge
// allocation (the sanitizer build runs this too).
TEST(PtFile, HostileBytesAreRefusedOrRead) {
  TemporaryFolder folder;
  const at::Tensor x = at::arange(6, at::kFloat).reshape({2, 3});
  write_pt(folder / "x.pt", x);
  const std::string good = read_bytes(folder / "x.pt");
  int refused = 0, read = 0;
  const auto try_bytes = [&](const std::string& bytes) {
    write_bytes(folder / "y.pt", bytes);
    try {
      const at::Tensor y = read_pt(folder / "y.pt");
      EXPECT_LE(y.numel(), 64);
      ++read;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("y.pt"), std::string::npos) << error.what();
      ++refused;
    }
  };
  for (size_t size = 0; size < good.size(); ++size) try_bytes(good.substr(0, size));
  EXPECT_EQ(read, 0) << "no truncated file is whole";
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ "\x01\x80\xff"[at % 3]);
    try_bytes(bad);
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(read, 100) << "padding and values may change";
}

TEST(PtFile, MissingAndWrongFiles) {
  TemporaryFolder folder;
  EXPECT_NE(error_of<std::runtime_error>([&] { read_pt(folder / "none.pt"); }).find("no such file"), std::string::npos);
  EXPECT_NE(error_of<std::runtime_error>([&] { read_pt(folder.path); }).find("no such file"), std::string::npos);
  write_bytes(folder / "text.pt", "hello");
  EXPECT_NE(error_of<std::runtime_error>([&] { read_pt(folder / "text.pt"); }).find("not a zip archive"),
            std::string::npos);
}

}  // namespace
}  // namespace hesper
