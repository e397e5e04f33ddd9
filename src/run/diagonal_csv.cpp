#include "run/diagonal_csv.h"

#include <fmt/format.h>
#include <fmt/ostream.h>

#include <algorithm>

#include "files/atomic_file.h"

namespace hesper {
namespace {

/// Entries of sum number `i` of a run.
int64_t entries_of(const SumRun& run, int64_t i, const UnitSums& sums) {
  const std::vector<int64_t>& shape = sums.shape();
  const int64_t all = c10::multiply_integers(shape);
  if (run.unit != "group") return all / run.count;
  const int64_t columns = shape[1], begin = i % run.stride * sums.group_size();
  return std::min(sums.group_size(), columns - begin);
}

struct Columns {
  at::Tensor mean;
  EntryErrors errors;
};

void write_value(std::ostream& out, const Columns& columns, int64_t at) {
  fmt::print(out, ",{:.9g}", columns.mean.const_data_ptr<double>()[at]);
  for (const at::Tensor& error : {columns.errors.probe, columns.errors.data, columns.errors.total})
    error.defined() ? fmt::print(out, ",{:.4g}", error.const_data_ptr<double>()[at]) : fmt::print(out, ",");
}

}  // namespace

void write_sums_csv(const std::filesystem::path& path, const DiagonalJob& job, const DiagonalResult& result) {
  write_file_atomically(path, [&](std::ostream& out) {
    out << "tensor,unit,index,group,entries,diagonal,diagonal_probe,diagonal_data,diagonal_total,saliency,"
           "saliency_probe,saliency_data,saliency_total\n";
    for (size_t t = 0; t < result.tensors.size(); ++t) {
      const UnitSums& sums = job.sums[t];
      const Columns columns{result.tensors[t].sums.mean, entry_errors(result.tensors[t].sums)};
      const int64_t saliency = sums.size() / 2;  // the same runs again, of h w^2 / 2
      for (const SumRun& run : sums.runs()) {
        if (run.saliency) continue;
        for (int64_t i = 0; i < run.count; ++i) {
          fmt::print(out, "{},{},{},{},{}", job.selection.tensors[t].name, run.unit,
                     run.unit == "layer" ? "" : fmt::format("{}", run.numbers[static_cast<size_t>(i / run.stride)]),
                     run.unit == "group" ? fmt::format("{}", i % run.stride) : "", entries_of(run, i, sums));
          write_value(out, columns, run.begin + i);
          write_value(out, columns, run.begin + saliency + i);
          out << '\n';
        }
      }
    }
  });
}

}  // namespace hesper
