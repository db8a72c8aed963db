"""What this machine is: its GPU by NVML, its processes by psutil. Nothing here knows of builds."""
