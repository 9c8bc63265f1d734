"""Ratios measured in one run: what a part costs against the bare thing it is built on."""
