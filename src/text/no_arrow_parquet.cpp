#include <fmt/format.h>

#include <stdexcept>

#include "text/parquet.h"

namespace hesper {

bool reads_parquet() { return false; }

std::vector<std::string> parquet_column(std::span<const std::byte>, const std::string&, const std::string& name,
                                        size_t) {
  throw std::runtime_error(fmt::format(
      "{}: this build reads no Parquet: `make setup` installs the pyarrow wheel, whose libraries do; then build again",
      name));
}

}  // namespace hesper
