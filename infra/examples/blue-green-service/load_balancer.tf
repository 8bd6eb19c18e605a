# One rule splits the users between two target groups. Which of them is blue changes with every deployment; a target group
# keeps its colour.

resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_150:An example is to be destroyed again
  #checkov:skip=CKV_AWS_91:Access logs need a bucket, which has nothing to do with what is shown here
  #checkov:skip=CKV2_AWS_28:A firewall has nothing to do with what is shown here
  #checkov:skip=CKV2_AWS_20:HTTPS needs a domain and a certificate, which an example does not have
  name                       = var.service
  load_balancer_type         = "application"
  security_groups            = [aws_security_group.load_balancer.id]
  subnets                    = aws_subnet.public[*].id
  drop_invalid_header_fields = true
}

resource "aws_lb_target_group" "this" {
  #checkov:skip=CKV_AWS_378:From the load balancer to the tasks, within the VPC
  for_each = toset(["blue", "green"])

  name        = "${var.service}-${each.key}"
  target_type = "ip"
  protocol    = "HTTP"
  port        = 80
  vpc_id      = aws_vpc.this.id
  # ECS ends a task when its last requests have: a forced delete takes as long.
  deregistration_delay = 60

  health_check {
    path                = "/"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "http" {
  #checkov:skip=CKV_AWS_2:HTTPS needs a domain and a certificate, which an example does not have
  #checkov:skip=CKV_AWS_103:As above
  load_balancer_arn = aws_lb.this.arn
  protocol          = "HTTP"
  port              = 80

  default_action {
    type = "fixed-response"

    fixed_response {
      content_type = "text/plain"
      message_body = "Nothing here"
      status_code  = "404"
    }
  }
}

resource "aws_lb_listener_rule" "this" {
  listener_arn = aws_lb_listener.http.arn
  priority     = 10

  condition {
    path_pattern {
      values = ["/*"]
    }
  }

  action {
    type = "forward"

    forward {
      target_group {
        arn    = aws_lb_target_group.this["blue"].arn
        weight = 100
      }

      target_group {
        arn    = aws_lb_target_group.this["green"].arn
        weight = 0
      }

      # A user stays with a version while both are there. Short: after a deployment the cookie of a returning user may
      # name a group where nobody is left.
      stickiness {
        enabled  = true
        duration = 300
      }
    }
  }

  # Whoever deploys moves the weights, and the guardian moves them back. This here must not.
  lifecycle {
    ignore_changes = [action]
  }
}
