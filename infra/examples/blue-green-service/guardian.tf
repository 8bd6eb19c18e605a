module "guardian" {
  source = "../../modules/guardian"

  clusters       = [var.cluster]
  services       = [var.service]
  load_balancers = [aws_lb.this.arn]
  alarm_names    = ["${var.service}-*"]

  # Found by the service's tag, so it protects nothing by itself. Every other key has its default.
  rules = {
    "${var.service}.toml" = <<-EOT
      name = "${var.service}"

      [stability]
      task_failures = 2

      [rollback]
      drain = "10s"
    EOT
  }

  image            = var.guardian_image
  vpc_id           = aws_vpc.this.id
  subnet_ids       = aws_subnet.public[*].id
  assign_public_ip = true
  subscriptions    = var.subscriptions
}
