#pragma once
#include <string>

namespace hesper {

/// Where files came from; empty for what the user named on this machine.
struct HubOrigin {
  std::string id;      // "ORG/NAME"
  std::string commit;  // 40 hex digits
};

}  // namespace hesper
