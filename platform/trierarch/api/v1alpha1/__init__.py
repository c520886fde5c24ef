"""``trierarch.dev/v1alpha1``."""

GROUP = "trierarch.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
