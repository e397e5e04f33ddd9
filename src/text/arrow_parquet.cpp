#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/memory_pool.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <parquet/column_reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>

#include <algorithm>
#include <stdexcept>

#include "files/printable.h"
#include "text/parquet.h"

namespace hesper {
namespace {

constexpr int64_t rows_at_once = 4096;

int text_column(const parquet::SchemaDescriptor& schema, const std::string& column, const std::string& name) {
  std::vector<std::string> texts;
  for (int i = 0; i < schema.num_columns(); ++i) {
    const parquet::ColumnDescriptor& one = *schema.Column(i);
    if (one.physical_type() != parquet::Type::BYTE_ARRAY || one.max_repetition_level() != 0) continue;
    const std::string path = one.path()->ToDotString();
    if (path == column) return i;
    if (texts.size() < 20) texts.push_back(printable(path));
  }
  throw std::runtime_error(fmt::format("{}: no column of texts named {}; there {} (--text-column)", name,
                                       printable(column),
                                       texts.empty() ? "is none" : fmt::format("are {}", fmt::join(texts, ", "))));
}

std::vector<std::string> read_column(std::span<const std::byte> bytes, const std::string& column,
                                     const std::string& name, size_t limit) {
  // What damaged sizes may ask for: the text and its compressed and encoded forms.
  arrow::CappedMemoryPool pool(arrow::default_memory_pool(), static_cast<int64_t>(3 * limit));
  const auto buffer = std::make_shared<arrow::Buffer>(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                      static_cast<int64_t>(bytes.size()));
  const auto reader = parquet::ParquetFileReader::Open(std::make_shared<arrow::io::BufferReader>(buffer),
                                                       parquet::ReaderProperties(&pool));
  const int index = text_column(*reader->metadata()->schema(), column, name);
  std::vector<std::string> rows;
  size_t total = 0;
  std::vector<int16_t> levels(rows_at_once);
  std::vector<parquet::ByteArray> values(rows_at_once);
  for (int group = 0; group < reader->metadata()->num_row_groups(); ++group) {
    const auto any = reader->RowGroup(group)->Column(index);
    if (any->type() != parquet::Type::BYTE_ARRAY)
      throw std::runtime_error(fmt::format("{}: column changes its type", name));
    auto& texts = static_cast<parquet::ByteArrayReader&>(*any);
    const int16_t present = texts.descr()->max_definition_level();
    while (texts.HasNext()) {
      int64_t read = 0;
      const int64_t count = texts.ReadBatch(rows_at_once, levels.data(), nullptr, values.data(), &read);
      if (count == 0 && read == 0) throw std::runtime_error(fmt::format("{}: a page without its values", name));
      int64_t next = 0;
      for (int64_t i = 0; i < count; ++i) {
        std::string& row = rows.emplace_back();
        if (present > 0 && levels[static_cast<size_t>(i)] < present) continue;
        if (next >= read) throw std::runtime_error(fmt::format("{}: a page with fewer values than rows", name));
        const parquet::ByteArray& value = values[static_cast<size_t>(next++)];
        total += value.len;
        if (total > limit) throw std::runtime_error(fmt::format("{}: holds more than {} bytes of text", name, limit));
        row.assign(reinterpret_cast<const char*>(value.ptr), value.len);
      }
    }
  }
  return rows;
}

}  // namespace

bool reads_parquet() { return true; }

std::vector<std::string> parquet_column(std::span<const std::byte> bytes, const std::string& column,
                                        const std::string& name, size_t limit) {
  try {
    return read_column(bytes, column, name, limit);
  } catch (const parquet::ParquetException& error) {
    std::string what = error.what();
    std::replace(what.begin(), what.end(), '\n', ' ');
    throw std::runtime_error(fmt::format("{}: not a Parquet file to read: {}", name, what));
  }
}

}  // namespace hesper
