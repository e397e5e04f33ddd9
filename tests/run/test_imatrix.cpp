// A diagonal's column sums as llama.cpp's importance matrix, read again with the reader of GGUF files.
#include <gtest/gtest.h>

#include <cstring>

#include "files/gguf.h"
#include "files/gguf_writer.h"
#include "files/mapped_file.h"
#include "run/diag.h"
#include "run/golden_run.h"
#include "run/imatrix_file.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using test::golden_windows;
using test::select;

class Imatrix : public testing::Test {
 protected:
  /// The exact diagonal of a golden model's layers, and the job it belongs to.
  void compute(const std::string& name, const SelectionRequest& request) {
    const Model model = load_model(test::golden_folder(name));
    job.windows = golden_windows(name);
    job.data_name = "some text";
    job.selection = select(model, request);
    job.sums = unit_sums(model, job.selection, 128);
    DiagOptions options;
    options.precision = at::kDouble;
    result = compute_exact_diag(model, job.selection, job.sums, job.windows, options);
  }
  std::vector<float> values(const GgufTensor& tensor, std::span<const std::byte> bytes) {
    std::vector<float> out((tensor.end - tensor.begin) / sizeof(float));
    std::memcpy(out.data(), bytes.data() + tensor.begin, out.size() * sizeof(float));
    return out;
  }

  DiagonalJob job;
  DiagonalResult result;
  TemporaryFolder folder;
};

TEST_F(Imatrix, ColumnsAreMeansOverRows) {
  SelectionRequest request;
  request.layers = {"self_attn.q_proj", "mlp.down_proj"};
  request.blocks = "all";
  compute("llama-gqa", request);
  check_imatrix(job);
  const std::string path = (folder / "x.imatrix.gguf").string();
  const ImatrixColumns count = write_imatrix(path, job, result);

  const MappedFile file(path);
  const Gguf gguf = parse_gguf(file.bytes(), path);
  EXPECT_EQ(gguf.version, 3U);
  const GgufFields fields(gguf, path);
  EXPECT_EQ(fields.text("general.type"), "imatrix");
  EXPECT_EQ(fields.texts("imatrix.datasets"), (std::vector<std::string_view>{"some text"}));
  EXPECT_EQ(fields.integer("imatrix.chunk_count", 1000), static_cast<uint64_t>(job.windows.ids.size(0)));
  EXPECT_EQ(fields.integer("imatrix.chunk_size", 1000), static_cast<uint64_t>(job.windows.ids.size(1)));
  ASSERT_EQ(gguf.tensors.size(), 2 * (job.selection.tensors.size() - count.left_out.size()));
  EXPECT_TRUE(std::is_sorted(gguf.tensors.begin(), gguf.tensors.end(), [](const GgufTensor& a, const GgufTensor& b) {
    return a.name.substr(0, a.name.rfind('.')) < b.name.substr(0, b.name.rfind('.'));
  }));

  const auto tokens = static_cast<double>(job.windows.ids.size(0) * (job.windows.ids.size(1) - 1));
  int64_t raised = 0, columns = 0;
  for (size_t i = 0; i < job.selection.tensors.size(); ++i) {
    const SelectedTensor& tensor = job.selection.tensors[i];
    const std::string name =
        fmt::format("blk.{}.{}.weight", tensor.block, tensor.layer == "self_attn.q_proj" ? "attn_q" : "ffn_down");
    const auto found = std::find_if(gguf.tensors.begin(), gguf.tensors.end(),
                                    [&](const GgufTensor& t) { return t.name == fmt::format("{}.in_sum2", name); });
    const at::Tensor sums = result.tensors[i].entries.mean.view({tensor.shape[0], tensor.shape[1]}).sum(0);
    EXPECT_EQ(found == gguf.tensors.end(), !sums.gt(0).any().item<bool>()) << name;
    if (found == gguf.tensors.end()) {
      EXPECT_TRUE(std::find(count.left_out.begin(), count.left_out.end(), tensor.name) != count.left_out.end());
      continue;
    }
    EXPECT_EQ(found->shape, std::vector<int64_t>{tensor.shape[1]});
    EXPECT_EQ((found + 1)->name, fmt::format("{}.counts", name));
    EXPECT_EQ(values(*(found + 1), file.bytes()), std::vector<float>{static_cast<float>(tokens)});
    // By hand, entry by entry.
    const at::Tensor h = result.tensors[i].entries.mean.view({tensor.shape[0], tensor.shape[1]});
    std::vector<double> a(static_cast<size_t>(tensor.shape[1]), 0.0);
    double positive = 0, positives = 0;
    for (size_t j = 0; j < a.size(); ++j) {
      for (int64_t row = 0; row < tensor.shape[0]; ++row) {
        a[j] += h[row][static_cast<int64_t>(j)].item<double>() / static_cast<double>(tensor.shape[0]);
      }
      if (a[j] > 0) positive += a[j], ++positives;
    }
    const double least = 1e-3 * positive / positives;
    const std::vector<float> in_sum2 = values(*found, file.bytes());
    for (size_t j = 0; j < a.size(); ++j, ++columns) {
      raised += a[j] < least ? 1 : 0;
      const double expected = tokens * std::max(a[j], least);
      EXPECT_NEAR(in_sum2[j], expected, 1e-6 * expected);  // float32 in the file
    }
  }
  EXPECT_EQ(count.columns, columns);
  EXPECT_EQ(count.raised, raised);
  EXPECT_GT(raised, 0);  // these layers have negative columns
  EXPECT_LT(raised, columns);
}

TEST_F(Imatrix, RefusesWhatLlamaCppCannotUse) {
  const auto refusal = [&](const std::string& name, SelectionRequest request) {
    compute(name, request);
    return error_of<std::invalid_argument>([&] { check_imatrix(job); });
  };
  SelectionRequest some;
  some.layers = {"self_attn.q_proj"};
  some.rows = IndexRange{0, 2};
  EXPECT_EQ(refusal("llama-gqa", some),
            "--export imatrix: model.layers.0.self_attn.q_proj.weight is not a whole matrix");
  SelectionRequest norm;
  norm.layers = {"model.norm.weight"};
  EXPECT_EQ(refusal("llama-gqa", norm), "--export imatrix: model.norm.weight is not a whole matrix");
  SelectionRequest whole;
  whole.layers = {"fc1"};
  EXPECT_EQ(refusal("opt-pre", whole), "--export imatrix: llama.cpp has no name for model.decoder.layers.0.fc1.weight");
}

TEST_F(Imatrix, NoPositiveColumn) {
  SelectionRequest request;
  request.layers = {"self_attn.q_proj"};
  compute("llama-gqa", request);
  result.tensors[0].sums.mean.fill_(-1);
  const std::string path = (folder / "x.gguf").string();
  EXPECT_NE(error_of<std::runtime_error>([&] { write_imatrix(path, job, result); }).find("positive sum"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(GgufWriter, PadsAndAligns) {
  const TemporaryFolder folder;
  GgufWriter writer;
  writer.add_text("a", "");
  writer.add_texts("b", {"x", "", "yz"});
  writer.add_number("c", 0xFFFFFFFF);
  writer.add_tensor("one", {1});
  writer.add_tensor("nine", std::vector<float>(9, 9));
  const std::string path = (folder / "x.gguf").string();
  writer.write(path);
  const MappedFile file(path);
  const Gguf gguf = parse_gguf(file.bytes(), path);
  ASSERT_EQ(gguf.tensors.size(), 2U);
  EXPECT_EQ(gguf.tensors[0].begin % 32, 0U);
  EXPECT_EQ(gguf.tensors[1].begin, gguf.tensors[0].begin + 32);
  EXPECT_EQ(file.bytes().size(), gguf.tensors[1].begin + 64);
  EXPECT_EQ(GgufFields(gguf, path).integer("c", 0xFFFFFFFF), 0xFFFFFFFFU);
  EXPECT_EQ(GgufFields(gguf, path).texts("b").size(), 3U);
}

}  // namespace
}  // namespace hesper
