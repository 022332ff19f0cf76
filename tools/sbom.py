"""The bill of materials of a wheel, as CycloneDX JSON: what is in it, and what it needs."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timezone
from email.message import Message
from pathlib import Path

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement


def bill(metadata: Message, module: Path, made: int) -> str:
    """Describe the wheel with this METADATA and compiled module, made at this time of Unix.

    The same wheel always has the same bill. Raises ValueError if it breaks the schema.
    """
    name, version = metadata["Name"], metadata["Version"]
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    compiled = Component(
        name=module.name,
        type=ComponentType.FILE,
        bom_ref=module.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    package = Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=name,
        purl=PackageURL("pypi", name=name, version=version),
        licenses=[LicenseFactory().make_from_string(metadata["License-Expression"])],
        components=[compiled],
    )
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest),
        metadata=None,
    )
    bom.metadata.timestamp = datetime.fromtimestamp(made, timezone.utc)
    bom.metadata.component = package
    needed = [
        Component(
            name=requirement,
            type=ComponentType.LIBRARY,
            bom_ref=requirement,
            purl=PackageURL("pypi", name=requirement),
            scope=ComponentScope.REQUIRED,
        )
        for requirement in sorted(required(metadata))
    ]
    bom.components.update(needed)
    bom.register_dependency(package, needed)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong:
        raise ValueError(f"the bill of materials breaks the schema: {wrong}")
    return text + "\n"


def required(metadata: Message) -> set[str]:
    """Name the packages that are installed with it, whatever extras are asked for."""
    requirements = map(Requirement, metadata.get_all("Requires-Dist", []))
    return {one.name for one in requirements if "extra" not in str(one.marker)}
