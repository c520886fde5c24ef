"""Custom resources as typed models; the YAML that Kubernetes gets is generated from them."""
