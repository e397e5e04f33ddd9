#include "report/pt_file.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "report/tensor_pickle.h"
#include "report/zip_store.h"
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
  EXPECT_NE(refusal("bool.pt").find("torch.BoolStorage"), std::string::npos) << refusal("bool.pt");
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

std::string refusal(const std::string& pickle) {
  return error_of<std::runtime_error>([&] { read_tensor_pickle(pickle); });
}

// A tensor's pickle with chosen numel, offset, sizes and strides (LONG1 of 8 bytes each).
std::string tensor_pickle(int64_t numel, int64_t offset, const std::vector<int64_t>& sizes,
                          const std::vector<int64_t>& strides) {
  const auto integer = [](int64_t value) {
    std::string bytes = "\x8a\x08";
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(static_cast<uint64_t>(value) >> 8 * i & 255);
    return bytes;
  };
  const auto tuple = [&](const std::vector<int64_t>& values) {
    std::string bytes = "(";
    for (const int64_t value : values) bytes += integer(value);
    return bytes + "t";
  };
  const auto text = [](const std::string& s) { return "\x8c" + std::string(1, static_cast<char>(s.size())) + s; };
  return "\x80\x02"
         "ctorch._utils\n_rebuild_tensor_v2\n((" +
         text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(numel) + "tQ" +
         integer(offset) + tuple(sizes) + tuple(strides) +
         "\x89"
         "ccollections\nOrderedDict\n)RtR.";
}

TEST(TensorPickle, BoundsOfTheView) {
  const TensorRecord record = read_tensor_pickle(tensor_pickle(12, 2, {2, 3}, {5, 1}));
  EXPECT_EQ(record.storage_key, "0");
  EXPECT_EQ(record.sizes, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(record.strides, (std::vector<int64_t>{5, 1}));
  EXPECT_EQ(record.offset, 2);
  constexpr int64_t huge = int64_t{1} << 62;
  EXPECT_EQ(refusal(tensor_pickle(10, 2, {2, 3}, {5, 1})), "");  // last element is 2 + 5 + 2 = 9
  EXPECT_NE(refusal(tensor_pickle(9, 2, {2, 3}, {5, 1})).find("element 9 of a storage of 9"), std::string::npos);
  EXPECT_NE(refusal(tensor_pickle(6, 0, {2, 3}, {0, 1})), refusal(tensor_pickle(5, 0, {2, 3}, {0, 1})));
  EXPECT_NE(refusal(tensor_pickle(6, -1, {2, 3}, {3, 1})).find("negative"), std::string::npos);
  EXPECT_NE(refusal(tensor_pickle(-6, 0, {0}, {1})).find("negative"), std::string::npos);
  EXPECT_NE(refusal(tensor_pickle(6, 0, {2, -3}, {3, 1})).find("negative"), std::string::npos);
  EXPECT_NE(refusal(tensor_pickle(6, 0, {2, 3}, {3, -1})).find("negative"), std::string::npos);
  EXPECT_NE(refusal(tensor_pickle(6, 0, {huge, huge}, {0, 0})).find("overflow"), std::string::npos);
  EXPECT_NE(refusal(tensor_pickle(6, 0, {huge, 0, huge}, {1, 1, 1})).find("overflow"), std::string::npos);
  EXPECT_NE(refusal(tensor_pickle(6, huge, {3}, {huge})).find("overflow"), std::string::npos);
  EXPECT_NE(refusal(tensor_pickle(6, 0, {2, 3}, {3})).find("2 sizes but 1 strides"), std::string::npos);
}

TEST(TensorPickle, ExecutesAndAllocatesNothing) {
  EXPECT_NE(refusal("\x80\x02"
                    "cposix\nsystem\nX\4\0\0\0true\x85R.")
                .find("posix.system"),
            std::string::npos);
  EXPECT_NE(refusal("\x80\x02"
                    "cbuiltins\neval\n.")
                .find("builtins.eval"),
            std::string::npos);
  EXPECT_NE(refusal(std::string("\x80\x02X\xff\xff\xff\xffx.", 8)).find("cut short"), std::string::npos);
  EXPECT_NE(refusal("").find("cut short"), std::string::npos);
  EXPECT_NE(refusal("\x80\x02.").find("stack is empty"), std::string::npos);
  EXPECT_NE(refusal("\x80\x02(.").find("not hold one plain tensor"), std::string::npos);
  EXPECT_NE(refusal("\x80\x02ht").find("memo 116"), std::string::npos);
  EXPECT_NE(refusal("\x80\x02)" + std::string(3000, '\x85') + ".").find("nested deeper"), std::string::npos);
  EXPECT_NE(refusal("\x80\x02i").find("opcode 0x69"), std::string::npos);
  EXPECT_NE(refusal("\x80\x02"
                    "ctorch\nFloatStorage\n)R.")
                .find("is called"),
            std::string::npos);
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
