from nlct.capabilities import Capabilities as Capabilities
from nlct.capabilities import probe as probe
from nlct.conntrack import Conntrack as Conntrack
from nlct.enums import DccpState as DccpState
from nlct.enums import Proto as Proto
from nlct.enums import SctpState as SctpState
from nlct.enums import Status as Status
from nlct.enums import TcpState as TcpState
from nlct.errors import Error as Error
from nlct.errors import ExistsError as ExistsError
from nlct.errors import InterruptedDumpError as InterruptedDumpError
from nlct.errors import InvalidRequestError as InvalidRequestError
from nlct.errors import NotFoundError as NotFoundError
from nlct.errors import OverrunError as OverrunError
from nlct.errors import PrivilegeError as PrivilegeError
from nlct.errors import TableFullError as TableFullError
from nlct.errors import UnsupportedError as UnsupportedError
from nlct.filter import ALL as ALL
from nlct.filter import Filter as Filter
from nlct.flow import Flow as Flow
from nlct.flow import Tuple as Tuple
from nlct.flush import FlushResult as FlushResult
from nlct.flusher import Flusher as Flusher
from nlct.load import LoadResult as LoadResult
from nlct.netns import Netns as Netns
from nlct.table import FlowTable as FlowTable

__version__: str
