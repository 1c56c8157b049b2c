"""The Service Stratum: units, their names, their stock, their delivery."""
